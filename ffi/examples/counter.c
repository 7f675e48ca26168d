/*
 * Counters that survive their process: memory that another process mirrors.
 *
 *     mirrorbus keygen counter.key
 *     cc -std=c99 counter.c -o counter $(pkg-config --cflags --libs mirrorbus)
 *     ./counter tcp://127.0.0.1:0 counter.key        or  shm:/tmp/counter.sock
 *
 * The child keeps the copy. In earnest it is another machine, which begins:
 *
 *     ./counter hold  rdma://10.0.0.2:7070 counter.key
 *     ./counter count rdma://10.0.0.2:7070 counter.key        on this one
 */
#define _POSIX_C_SOURCE 200809L
#include <mirrorbus.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNTERS = 4, ROUNDS = 1000, REGION_BYTES = 4096 };
static const uint64_t SECOND = 1000000000;

/* Every function returns 0 or a negative code; the text says what was wrong, and what to do. */
static void check(int code, const char *what)
{
    if (code == MIRRORBUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mirrorbus_code_name(code), mirrorbus_error_text());
    exit(1);
}

/* Until the owner has come and gone. */
static void wait_for_owner(mirrorbus_holder *holder)
{
    mirrorbus_holder_status status = {.size = sizeof status};
    check(mirrorbus_holder_get_status(holder, &status), "status");
    while (status.content != MIRRORBUS_CONTENT_COMPLETE || status.connected)
        check(mirrorbus_holder_wait_change(holder, status.changes, MIRRORBUS_FOREVER, &status), "wait");
}

/* Keeps the copy until `told` ends, and says through `tell` where it listens. Without `told` until the owner is gone. */
static int hold(const char *url, const char *key, int tell, int told)
{
    mirrorbus_holder_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = REGION_BYTES;
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_holder *holder = NULL;
    check(mirrorbus_holder_open(&options, &holder), "holder");

    char address[256] = "";
    check(mirrorbus_holder_url(holder, address, sizeof address), "address");
    if (told < 0) {
        printf("listening on %s\n", address);
        fflush(stdout);
        wait_for_owner(holder);
    } else {
        if (write(tell, address, sizeof address) != (ssize_t)sizeof address)
            return 1;
        char byte;
        while (read(told, &byte, 1) > 0)
            ;
    }
    /* Nobody writes into the copy any more: what was acknowledged is in it. */
    check(mirrorbus_holder_fence(holder, 10 * SECOND, NULL), "fence");
    uint64_t counters[COUNTERS];
    check(mirrorbus_holder_read(holder, 0, counters, sizeof counters), "read");
    for (int i = 0; i < COUNTERS; i++)
        printf("copy: counter %d is %llu\n", i, (unsigned long long)counters[i]);
    check(mirrorbus_holder_close(holder), "close");
    return 0;
}

static int count(const char *url, const char *key)
{
    mirrorbus_region_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = REGION_BYTES;
    options.attach = MIRRORBUS_ATTACH_PUSH;
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_region *region = NULL;
    check(mirrorbus_region_open(&options, &region), "region");
    /* A thread that stores has a lane of its own. */
    mirrorbus_lane *lane = NULL;
    check(mirrorbus_lane_open(region, NULL, &lane), "lane");

    mirrorbus_ticket ticket = {0, 0};
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < COUNTERS; i++) {
            uint64_t value;
            uint64_t place = (uint64_t)i * sizeof value;
            check(mirrorbus_region_read(region, place, &value, sizeof value), "read");
            value += (uint64_t)i + 1;
            check(mirrorbus_lane_store(lane, place, &value, sizeof value, &ticket), "store");
        }
    /* One wait for all: the store of the ticket and every one before it is in the other process' memory. */
    check(mirrorbus_lane_wait(lane, ticket, MIRRORBUS_VISIBLE, 10 * SECOND), "wait");
    printf("%llu stores are visible at the holder\n", (unsigned long long)ticket.sequence);
    check(mirrorbus_lane_close(lane), "close");
    check(mirrorbus_region_close(region), "close");
    return 0;
}

int main(int argc, char **argv)
{
    int up[2], down[2];
    /* Built for this library? */
    check(mirrorbus_abi_check(MIRRORBUS_ABI_VERSION), "libmirrorbus");
    if (argc == 4 && strcmp(argv[1], "hold") == 0)
        return hold(argv[2], argv[3], -1, -1);
    if (argc == 4 && strcmp(argv[1], "count") == 0)
        return count(argv[2], argv[3]);
    if (argc != 3 || pipe(up) != 0 || pipe(down) != 0) {
        fprintf(stderr, "usage: counter [hold|count] URL KEYFILE\n");
        return 2;
    }
    /* Before the library is used: what is opened belongs to the process that opened it. */
    pid_t child = fork();
    if (child == 0) {
        close(down[1]);
        return hold(argv[1], argv[2], up[1], down[0]);
    }
    close(up[1]);
    char address[256];
    if (child < 0 || read(up[0], address, sizeof address) != (ssize_t)sizeof address)
        return 1;
    count(address, argv[2]);
    fflush(stdout);
    close(down[1]);
    int status = 1;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}
