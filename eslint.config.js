// What is wrong in a script or reads badly; names that are not there and wrong types are tsc's (tsconfig.json).
import js from "@eslint/js";

export default [
  { ignores: ["src/clickvol/viewer/vendor/"] },
  js.configs.recommended,
  {
    rules: {
      "no-undef": "off",
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-shadow": "error",
      "max-lines": ["error", 500],
      "max-lines-per-function": ["error", { max: 150 }],
      "no-console": "error",
    },
  },
];
