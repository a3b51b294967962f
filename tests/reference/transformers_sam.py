"""The SAM of the transformers package: made small, and its state under the names of SAM's own files."""

import re

# Pattern of transformers' name -> name in SAM's files..
_RULES = (
    (r"shared_image_embedding\.positional_embedding", None),
    (
        r"prompt_encoder\.shared_embedding\.positional_embedding",
        r"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"prompt_encoder\.point_embed\.(\d)\.weight", r"prompt_encoder.point_embeddings.\1.weight"),
    (r"prompt_encoder\.mask_embed\.conv1\.(.+)", r"prompt_encoder.mask_downscaling.0.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.(.+)", r"prompt_encoder.mask_downscaling.1.\1"),
    (r"prompt_encoder\.mask_embed\.conv2\.(.+)", r"prompt_encoder.mask_downscaling.3.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.(.+)", r"prompt_encoder.mask_downscaling.4.\1"),
    (r"prompt_encoder\.mask_embed\.conv3\.(.+)", r"prompt_encoder.mask_downscaling.6.\1"),
    (r"prompt_encoder\.(no_mask_embed|not_a_point_embed)\.weight", r"prompt_encoder.\1.weight"),
    (r"vision_encoder\.pos_embed", r"image_encoder.pos_embed"),
    (r"vision_encoder\.patch_embed\.projection\.(.+)", r"image_encoder.patch_embed.proj.\1"),
    (r"vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.(.+)", r"image_encoder.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.layers\.(\d+)\.((?:attn|mlp)\..+)", r"image_encoder.blocks.\1.\2"),
    (r"vision_encoder\.neck\.conv1\.(.+)", r"image_encoder.neck.0.\1"),
    (r"vision_encoder\.neck\.layer_norm1\.(.+)", r"image_encoder.neck.1.\1"),
    (r"vision_encoder\.neck\.conv2\.(.+)", r"image_encoder.neck.2.\1"),
    (r"vision_encoder\.neck\.layer_norm2\.(.+)", r"image_encoder.neck.3.\1"),
    (r"mask_decoder\.(iou_token|mask_tokens)\.weight", r"mask_decoder.\1.weight"),
    (
        r"mask_decoder\.transformer\.layers\.(\d)\.layer_norm(\d)\.(.+)",
        r"mask_decoder.transformer.layers.\1.norm\2.\3",
    ),
    (
        r"mask_decoder\.transformer\.(layers\.\d\.(?:self|cross)_attn.+|layers\.\d\.mlp\..+)",
        r"mask_decoder.transformer.\1",
    ),
    (r"mask_decoder\.transformer\.(final_attn.+)", r"mask_decoder.transformer.\1"),
    (
        r"mask_decoder\.transformer\.layer_norm_final_attn\.(.+)",
        r"mask_decoder.transformer.norm_final_attn.\1",
    ),
    (r"mask_decoder\.upscale_conv1\.(.+)", r"mask_decoder.output_upscaling.0.\1"),
    (r"mask_decoder\.upscale_layer_norm\.(.+)", r"mask_decoder.output_upscaling.1.\1"),
    (r"mask_decoder\.upscale_conv2\.(.+)", r"mask_decoder.output_upscaling.3.\1"),
    (r"(mask_decoder\.[a-z_]+(?:\.\d)?)\.proj_in\.(weight|bias)", r"\1.layers.0.\2"),
    (r"(mask_decoder\.[a-z_]+(?:\.\d)?)\.layers\.0\.(weight|bias)", r"\1.layers.1.\2"),
    (r"(mask_decoder\.[a-z_]+(?:\.\d)?)\.proj_out\.(weight|bias)", r"\1.layers.2.\2"),
)


def sam_names(state):
    """Return a state dict of transformers' SamModel under the names of SAM's own files."""
    renamed = {}
    for name, tensor in state.items():
        (rule,) = [(p, target) for p, target in _RULES if re.fullmatch(p, name)]
        if rule[1] is not None:
            renamed[re.sub(*rule, name)] = tensor
    return renamed


def tiny_sam(transformers):
    """Return a SamModel: 80-pixel input, 10 x 10 tokens that windows of 4 do not divide."""
    vision = transformers.SamVisionConfig(
        hidden_size=24,
        output_channels=32,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=80,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
        mlp_ratio=2.0,
        num_pos_feats=16,
    )
    prompt = transformers.SamPromptEncoderConfig(
        hidden_size=32, image_size=80, patch_size=8, mask_input_channels=8
    )
    # transformers' own default for the decoder is 1e-6; the LayerNorms of the published build have 1e-5.
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=32,
        mlp_dim=48,
        num_attention_heads=4,
        iou_head_hidden_dim=40,
        layer_norm_eps=1e-5,
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    return transformers.SamModel(config).eval()
