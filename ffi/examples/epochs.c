/*
 * A bank in plain memory: its code knows nothing of mirrors, and whenever it dies the copy has the books as of a commit, balanced.
 *
 *     cc -std=c99 epochs.c -o epochs $(pkg-config --cflags --libs mirrorbus)
 *     ./epochs tcp://127.0.0.1:0 KEYFILE [COMMITS]
 *
 * The parent keeps the copy; the child moves money by ordinary stores, commits after every few moves, and is killed in the middle of that.
 * On two machines `./epochs hold URL KEYFILE` keeps the copy, and takes over when `./epochs run URL KEYFILE COMMITS` is gone.
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

enum { ACCOUNTS = 20000, MOVES = 50, START = 1000, ADDRESS_BYTES = 256 };
static const uint64_t SECOND = 1000000000;

struct bank {
    uint64_t commits;
    int64_t accounts[ACCOUNTS];
};

static void check(int code, const char *what)
{
    if (code == MIRRORBUS_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mirrorbus_code_name(code), mirrorbus_error_text());
    exit(1);
}

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* The bank's own code: stores into memory, and nothing else. */
static void move_money(struct bank *bank, uint64_t *random)
{
    for (int i = 0; i < MOVES; i++) {
        int64_t amount = (int64_t)(next(random) % 100);
        bank->accounts[next(random) % ACCOUNTS] -= amount;
        bank->accounts[next(random) % ACCOUNTS] += amount;
    }
    bank->commits++;
}

/* Commits so often, and tells the number of each commit that the copy has. */
static int run(const char *url, const char *key, uint64_t commits, int tell)
{
    mirrorbus_epochs_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = sizeof(struct bank);
    options.attach = MIRRORBUS_ATTACH_PUSH;
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_epochs *epochs = NULL;
    void *memory = NULL;
    check(mirrorbus_epochs_open(&options, &epochs), "epochs");
    check(mirrorbus_epochs_memory(epochs, &memory, NULL), "memory");
    mirrorbus_epochs_status status = {.size = sizeof status};
    check(mirrorbus_epochs_get_status(epochs, &status), "status");
    fprintf(stderr, "stores are found by %s\n", status.tracking_reason);

    struct bank *bank = memory;
    for (int i = 0; i < ACCOUNTS; i++)
        bank->accounts[i] = START;
    uint64_t random = 88172645463325252u;
    while (bank->commits < commits) {
        move_money(bank, &random);
        /* Threads that store would be held until this returns, or until mirrorbus_epochs_cut() does. */
        mirrorbus_cut cut = {.size = sizeof cut};
        check(mirrorbus_epochs_commit(epochs, MIRRORBUS_ACKED, 10 * SECOND, &cut), "commit");
        if (tell >= 0 && write(tell, &cut.epoch, sizeof cut.epoch) != (ssize_t)sizeof cut.epoch)
            break;
    }
    printf("acknowledged %" PRIu64 "\n", bank->commits);
    check(mirrorbus_epochs_close(epochs), "close");
    return 0;
}

/* Whether the books of the copy are those of its epoch, and balanced. */
static int is_whole(mirrorbus_epoch_holder *holder, uint64_t epoch)
{
    static struct bank copy;
    uint64_t found = 0;
    check(mirrorbus_epoch_holder_copy(holder, &copy, sizeof copy, &found), "copy");
    int64_t sum = 0;
    for (int i = 0; i < ACCOUNTS; i++)
        sum += copy.accounts[i];
    printf("epoch %" PRIu64 ": commit %" PRIu64 ", %" PRId64 " in all accounts\n", found, copy.commits, sum);
    return found == epoch && copy.commits == epoch && sum == (int64_t)ACCOUNTS * START;
}

static mirrorbus_epoch_holder *hold(const char *url, const char *key, char *address)
{
    mirrorbus_holder_options options = {.size = sizeof options};
    options.url = url;
    options.key_file = key;
    options.bytes = sizeof(struct bank);
    options.lock = MIRRORBUS_LOCK_TRY;
    mirrorbus_epoch_holder *holder = NULL;
    check(mirrorbus_epoch_holder_open(&options, 0, &holder), "holder");
    check(mirrorbus_epoch_holder_url(holder, address, ADDRESS_BYTES), "address");
    return holder;
}

/* What came whole is in, and the rest is dropped: from here on the copy does not change. */
static uint64_t take_over(mirrorbus_epoch_holder *holder)
{
    uint64_t epoch = 0;
    check(mirrorbus_epoch_holder_take_over(holder, 10 * SECOND, &epoch), "take over");
    int whole = is_whole(holder, epoch);
    check(mirrorbus_epoch_holder_close(holder), "close");
    if (!whole)
        exit(1);
    return epoch;
}

/* Keeps the copy until an owner has come and gone. */
static int hold_alone(const char *url, const char *key)
{
    char address[ADDRESS_BYTES];
    mirrorbus_epoch_holder *holder = hold(url, key, address);
    printf("listening on %s\n", address);
    fflush(stdout);
    mirrorbus_epoch_holder_status status = {.size = sizeof status};
    check(mirrorbus_epoch_holder_get_status(holder, &status), "status");
    while (!status.whole || status.connected)
        check(mirrorbus_epoch_holder_wait_change(holder, status.changes, SECOND, &status), "wait");
    printf("found %" PRIu64 "\n", take_over(holder));
    return 0;
}

int main(int argc, char **argv)
{
    int up[2], down[2];
    if (argc >= 4 && strcmp(argv[1], "hold") == 0)
        return hold_alone(argv[2], argv[3]);
    if (argc >= 5 && strcmp(argv[1], "run") == 0)
        return run(argv[2], argv[3], strtoull(argv[4], NULL, 10), -1);
    if (argc < 3 || pipe(up) != 0 || pipe(down) != 0) {
        fprintf(stderr, "usage: epochs [hold|run] URL KEYFILE [COMMITS]\n");
        return 2;
    }
    uint64_t wanted = argc > 3 ? strtoull(argv[3], NULL, 10) : 200;
    /* Before the library is used. The child learns the holder's address when there is one. */
    pid_t child = fork();
    char address[ADDRESS_BYTES] = "";
    if (child == 0) {
        close(up[0]);
        if (read(down[0], address, sizeof address) != (ssize_t)sizeof address)
            return 1;
        return run(address, argv[2], UINT64_MAX, up[1]);
    }
    close(up[1]);
    mirrorbus_epoch_holder *holder = hold(argv[1], argv[2], address);
    if (child < 0 || write(down[1], address, sizeof address) != (ssize_t)sizeof address)
        return 1;

    uint64_t acknowledged = 0, number = 0;
    while (acknowledged < wanted && read(up[0], &number, sizeof number) == (ssize_t)sizeof number)
        acknowledged = number;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (read(up[0], &number, sizeof number) == (ssize_t)sizeof number)
        acknowledged = number;
    uint64_t epoch = take_over(holder);
    printf("acknowledged %" PRIu64 ", found %" PRIu64 "\n", acknowledged, epoch);
    return acknowledged >= wanted && epoch >= acknowledged ? 0 : 1;
}
