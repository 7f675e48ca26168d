/*
 * A log that is whole after a crash: its writer is killed in the middle, and every record that it was told is safe is in the copy.
 *
 *     cc -std=c99 append_log.c -o append_log $(pkg-config --cflags --libs mirrorbus)
 *     ./append_log tcp://127.0.0.1:0 KEYFILE [RECORDS]
 *
 * Stores of one lane arrive in their order, but a store may be there in part when its writer dies. So each record has a checksum; the first
 * that does not fit is the end of the log. No commit mark, no second write.
 */
#define _POSIX_C_SOURCE 200809L
#include <mirrorbus.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REGION_BYTES = 1 << 20, PAYLOAD_BYTES_MAX = 200, ADDRESS_BYTES = 256 };
static const uint64_t SECOND = 1000000000;

/* What stands before a record's bytes. */
struct head {
    uint32_t bytes;
    uint32_t checksum;
    uint64_t number; /* 1, 2, … */
};

static void check(int code, const char *what)
{
    if (code == MIRRORBUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mirrorbus_code_name(code), mirrorbus_error_text());
    exit(1);
}

/* FNV-1a: enough to tell half a record from a whole one. */
static uint32_t checksum(uint64_t number, const char *data, uint32_t bytes)
{
    uint32_t sum = 2166136261u;
    for (int i = 0; i < 8; i++)
        sum = (sum ^ (uint8_t)(number >> (8 * i))) * 16777619u;
    for (uint32_t i = 0; i < bytes; i++)
        sum = (sum ^ (uint8_t)data[i]) * 16777619u;
    return sum;
}

/* Appends until it is killed, and tells the number of each record that is acknowledged. */
static void append(const char *url, const char *key, int tell)
{
    mirrorbus_region_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = REGION_BYTES;
    options.attach = MIRRORBUS_ATTACH_PUSH;
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_region *region = NULL;
    mirrorbus_lane *lane = NULL;
    check(mirrorbus_region_open(&options, &region), "region");
    check(mirrorbus_lane_open(region, NULL, &lane), "lane");
    uint64_t end = 0;
    for (uint64_t number = 1;; number++) {
        char payload[PAYLOAD_BYTES_MAX];
        int text = snprintf(payload, sizeof payload, "record %" PRIu64 " %0*d", number, (int)(number % 150), 0);
        struct head head = {(uint32_t)text, 0, number};
        head.checksum = checksum(number, payload, head.bytes);
        if (end + sizeof head + head.bytes > REGION_BYTES)
            break;
        /* Head and payload as one store. */
        mirrorbus_part parts[2] = {{&head, sizeof head}, {payload, head.bytes}};
        mirrorbus_ticket ticket;
        check(mirrorbus_lane_store_v(lane, end, parts, 2, &ticket), "store");
        check(mirrorbus_lane_wait(lane, ticket, MIRRORBUS_ACKED, 10 * SECOND), "wait");
        end += sizeof head + head.bytes;
        if (write(tell, &number, sizeof number) != (ssize_t)sizeof number)
            break;
    }
    exit(0);
}

/* Counts the whole records of the copy. */
static uint64_t recover(mirrorbus_holder *holder)
{
    static char copy[REGION_BYTES];
    check(mirrorbus_holder_read(holder, 0, copy, sizeof copy), "read");
    uint64_t end = 0, number = 0;
    struct head head;
    while (end + sizeof head <= REGION_BYTES) {
        memcpy(&head, copy + end, sizeof head);
        const char *payload = copy + end + sizeof head;
        if (head.number != number + 1 || head.bytes > REGION_BYTES - end - sizeof head ||
            head.checksum != checksum(head.number, payload, head.bytes))
            break;
        number = head.number;
        end += sizeof head + head.bytes;
    }
    return number;
}

int main(int argc, char **argv)
{
    int up[2], down[2];
    if (argc < 3 || pipe(up) != 0 || pipe(down) != 0) {
        fprintf(stderr, "usage: append_log URL KEYFILE [RECORDS]\n");
        return 2;
    }
    uint64_t wanted = argc > 3 ? strtoull(argv[3], NULL, 10) : 500;
    /* Before the library is used. The child learns the holder's address when there is one. */
    pid_t child = fork();
    char address[ADDRESS_BYTES] = "";
    if (child == 0) {
        close(up[0]);
        if (read(down[0], address, sizeof address) != (ssize_t)sizeof address)
            return 1;
        append(address, argv[2], up[1]);
    }
    close(up[1]);
    mirrorbus_holder_options options = {.size = sizeof options};
    options.url = argv[1];
    options.key_file = argv[2];
    options.bytes = REGION_BYTES;
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_holder *holder = NULL;
    check(mirrorbus_holder_open(&options, &holder), "holder");
    check(mirrorbus_holder_url(holder, address, sizeof address), "address");
    if (child < 0 || write(down[1], address, sizeof address) != (ssize_t)sizeof address)
        return 1;

    uint64_t acknowledged = 0, number = 0;
    while (acknowledged < wanted && read(up[0], &number, sizeof number) == (ssize_t)sizeof number)
        acknowledged = number;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    /* What it managed to tell before it died counts too. */
    while (read(up[0], &number, sizeof number) == (ssize_t)sizeof number)
        acknowledged = number;
    /* What is on its way yet is in, or stays out: from here on the copy does not change. */
    check(mirrorbus_holder_fence(holder, 10 * SECOND, NULL), "fence");
    uint64_t found = recover(holder);
    printf("acknowledged %" PRIu64 ", found %" PRIu64 "\n", acknowledged, found);
    check(mirrorbus_holder_close(holder), "close");
    return acknowledged >= wanted && found >= acknowledged ? 0 : 1;
}
