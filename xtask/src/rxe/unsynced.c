/* Loaded in front of the C library, it makes of a program what a build that skips the sync of segments would be: each fdatasync of a
 * file of a segment returns at once, and nothing was done. All other calls are as they were, so that what is lost is lost by that alone. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (strstr(path, ".segment"))
            return 0;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
