"""Every command with every flag, by libnbd, against a disk of 32 MiB that is empty.

Arguments: its URI, its name, its description, and whether it is `thin`: zeroes are a hole then, whatever is asked for.
"""

import errno
import sys

import nbd

SIZE = 32 << 20
uri, name, description, kind = sys.argv[1:]


def connect(prepare=lambda handle: None):
    handle = nbd.NBD()
    prepare(handle)
    handle.connect_uri(uri)
    return handle


def refused(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error, number)
        return
    raise AssertionError(f"no error {number}")


def negotiation():
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.set_full_info(True)
    handle.connect_uri(uri)
    exports = []
    handle.opt_list(lambda found, told: exports.append((found, told)) or 0)
    assert exports == [(name, description)], exports
    contexts = []
    handle.opt_list_meta_context(lambda context: contexts.append(context) or 0)
    # What is thin is a volume of a pair.
    assert contexts == ["base:allocation"] + ["mirrorbus:unreplicated"] * (kind == "thin"), contexts
    handle.opt_info()
    assert handle.get_size() == SIZE and handle.get_canonical_export_name() == name
    assert handle.get_export_description() == description
    handle.set_export_name("no such disk")
    refused(errno.ENOENT, handle.opt_go)
    handle.set_export_name(name)
    handle.add_meta_context("base:allocation")
    handle.opt_go()
    assert handle.get_structured_replies_negotiated() and handle.can_meta_context("base:allocation")
    handle.shutdown()

    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_uri(uri)
    handle.opt_abort()


def commands():
    handle = connect(lambda handle: handle.add_meta_context("base:allocation"))
    can = [handle.can_cache, handle.can_df, handle.can_fast_zero, handle.can_flush, handle.can_fua]
    can += [handle.can_multi_conn, handle.can_trim, handle.can_zero]
    assert all(able() for able in can) and not handle.is_read_only() and not handle.is_rotational()
    assert [handle.get_block_size(kind) for kind in (0, 1, 2)] == [1, 4096, 32 << 20]

    for flags in (0, nbd.CMD_FLAG_FUA):
        handle.pwrite(b"\x5a" * 8192, 4096, flags)
        assert handle.pread(8192, 4096) == b"\x5a" * 8192
    handle.flush()
    handle.cache(8192, 4096)

    # Zeroes, of every kind: what is kept allocated is no hole.
    for flags in range(8):
        handle.pwrite(b"\xa5" * 8192, 0)
        of = nbd.CMD_FLAG_FUA * (flags & 1)
        of |= nbd.CMD_FLAG_NO_HOLE * (flags >> 1 & 1)
        of |= nbd.CMD_FLAG_FAST_ZERO * (flags >> 2 & 1)
        handle.zero(8192, 0, of)
        assert handle.pread(8192, 0) == bytes(8192)
        found = extents(handle, 8192, 0)
        assert found == [8192, 0 if flags & 2 and kind != "thin" else 3], (flags, found)
    for flags in (0, nbd.CMD_FLAG_FUA):
        handle.pwrite(b"\xa5" * 8192, 0)
        handle.trim(8192, 0, flags)
        assert extents(handle, 8192, 0) == [8192, 3]

    handle.pwrite(b"x", 1 << 20)
    assert extents(handle, SIZE, 0)[:6] == [8192, 3, 4096, 0, (1 << 20) - 12288, 3]
    assert extents(handle, SIZE, 0, nbd.CMD_FLAG_REQ_ONE) == [8192, 3]

    # Data and holes in one read, as chunks and as one.
    chunks = []

    def chunk(part, offset, status, error):
        chunks.append((offset, len(part), status))

    expected = bytes(8192) + b"\x5a" * 4096 + bytes((1 << 20) - 12288) + b"x" + bytes(4095)
    assert handle.pread_structured(len(expected), 0, chunk) == expected
    assert any(status == nbd.READ_HOLE for _, _, status in chunks), chunks
    chunks.clear()
    assert handle.pread_structured(len(expected), 0, chunk, nbd.CMD_FLAG_DF) == expected
    assert chunks == [(0, len(expected), nbd.READ_DATA)], chunks

    # The longest of each, and one that is cut into many pieces.
    longest = bytes(range(256)) * (SIZE // 256)
    handle.pwrite(longest, 0)
    assert handle.pread(SIZE, 0) == longest
    assert handle.pread_structured(SIZE, 0, lambda *_: 0, nbd.CMD_FLAG_DF) == longest
    assert handle.pread(12345, 6789) == longest[6789 : 6789 + 12345]
    handle.zero(SIZE, 0)
    handle.shutdown()


def extents(handle, length, offset, flags=0):
    found = []
    handle.block_status(length, offset, lambda context, at, entries, error: found.extend(entries) or 0, flags)
    return found


def refusals():
    handle = connect()
    handle.set_strict_mode(0)
    refused(errno.EINVAL, lambda: handle.pread(512, SIZE))
    refused(errno.EINVAL, lambda: handle.pread(512, SIZE - 511))
    refused(errno.ENOSPC, lambda: handle.pwrite(b"x" * 512, SIZE - 511))
    refused(errno.ENOSPC, lambda: handle.zero(512, SIZE))
    refused(errno.EINVAL, lambda: handle.trim(512, SIZE))
    refused(errno.EINVAL, lambda: handle.cache(512, SIZE))
    refused(errno.EINVAL, lambda: handle.block_status(512, 0, lambda *_: 0))
    refused(errno.EINVAL, lambda: handle.pread(0, 0))
    refused(errno.EINVAL, lambda: handle.trim(512, 0, nbd.CMD_FLAG_NO_HOLE))
    # It goes on all the same.
    handle.pwrite(b"still here", 0)
    assert handle.pread(10, 0) == b"still here"
    handle.shutdown()


def without_structured_replies():
    handle = connect(lambda handle: handle.set_request_structured_replies(False))
    assert not handle.get_structured_replies_negotiated() and not handle.can_df()
    handle.pwrite(b"simple", 100)
    assert handle.pread(6, 100) == b"simple"
    longest = b"\x77" * SIZE
    handle.pwrite(longest, 0)
    assert handle.pread(SIZE, 0) == longest
    handle.zero(SIZE, 0)
    handle.shutdown()


def many_at_once():
    handle = connect()
    buffers = [nbd.Buffer.from_bytearray(bytearray([number] * 5000)) for number in range(64)]
    cookies = [handle.aio_pwrite(buffer, 5000 * number) for number, buffer in enumerate(buffers)]
    while handle.aio_in_flight() > 0:
        handle.poll(-1)
        cookies = [cookie for cookie in cookies if not handle.aio_command_completed(cookie)]
    assert not cookies
    targets = [nbd.Buffer(5000) for _ in range(64)]
    cookies = [handle.aio_pread(target, 5000 * number) for number, target in enumerate(targets)]
    while handle.aio_in_flight() > 0:
        handle.poll(-1)
        cookies = [cookie for cookie in cookies if not handle.aio_command_completed(cookie)]
    assert all(bytes(target.to_bytearray()) == bytes([number] * 5000) for number, target in enumerate(targets))
    # What one connection flushed, another sees.
    other = connect()
    assert other.pread(5000, 5000) == bytes([1] * 5000)
    handle.shutdown()
    other.shutdown()


negotiation()
commands()
refusals()
without_structured_replies()
many_at_once()
print("everything as it should be")
