"""What the peer lacks, by libnbd: the stretches of the context mirrorbus:unreplicated, as JSON. Argument: the URI."""

import json
import sys

import nbd

UNREPLICATED = "mirrorbus:unreplicated"
ALLOCATION = "base:allocation"

handle = nbd.NBD()
handle.set_opt_mode(True)
handle.connect_uri(sys.argv[1])
contexts = []
handle.opt_list_meta_context(lambda name: contexts.append(name) or 0)
assert contexts == [ALLOCATION, UNREPLICATED], contexts
handle.add_meta_context(ALLOCATION)
handle.add_meta_context(UNREPLICATED)
handle.opt_go()
assert handle.can_meta_context(ALLOCATION) and handle.can_meta_context(UNREPLICATED)

size = handle.get_size()
found = {}


def extents(length, offset, flags=0):
    found.clear()
    handle.block_status(
        length, offset, lambda context, at, entries, error: found.update({context: list(entries)}) or 0, flags
    )
    return dict(found)


every = extents(size, 0)
assert set(every) == {ALLOCATION, UNREPLICATED}, every
# A part of it is told as that part.
part = extents(1000, 4000)
assert sum(part[UNREPLICATED][::2]) == 1000, part
assert len(extents(size, 0, nbd.CMD_FLAG_REQ_ONE)[UNREPLICATED]) == 2
handle.shutdown()

# One context alone.
handle = nbd.NBD()
handle.add_meta_context(UNREPLICATED)
handle.connect_uri(sys.argv[1])
assert not handle.can_meta_context(ALLOCATION)
assert extents(size, 0) == {UNREPLICATED: every[UNREPLICATED]}
handle.shutdown()
print(json.dumps(every[UNREPLICATED]))
