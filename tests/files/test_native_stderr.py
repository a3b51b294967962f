import contextlib
import os
import threading

from clickvol.files.native_stderr import silent_native_stderr


def test_only_the_block_is_silent(capfd):
    os.write(2, b"before ")
    with silent_native_stderr():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_stderr_returns_after_an_exception(capfd):
    with contextlib.suppress(ValueError), silent_native_stderr():
        os.write(2, b"inside")
        raise ValueError
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_threads_do_not_lose_it(capfd):
    def work():
        for _ in range(50):
            with silent_native_stderr():
                os.write(2, b"inside")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
