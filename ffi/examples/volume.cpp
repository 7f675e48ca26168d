// A disk on two nodes: what is written on one is read on the other, when that takes over.
//
//     c++ -std=c++17 volume.cpp -o volume $(pkg-config --cflags --libs mirrorbus)
//     ./volume DIRECTORY KEYFILE URL_OF_ALPHA URL_OF_BETA
//
// Both nodes are in this program, so that it is short; in earnest they are two machines, each with its half of this.
#include <mirrorbus.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t SECOND = 1'000'000'000;
constexpr std::uint64_t BLOCK = 4096;

void check(int code, const char *what)
{
    if (code != MIRRORBUS_OK)
        throw std::runtime_error(std::string(what) + ": " + mirrorbus_code_name(code) + ": " + mirrorbus_error_text());
}

// One side of the pair. Closed when it goes out of scope.
class Node {
public:
    Node(const std::string &directory, const char *key, const char *name, const char *listen, const char *peer)
    {
        mirrorbus_dataset_options options{};
        options.size = sizeof options;
        options.id = "6d6972726f72627573206f6e65207477";
        options.node = name;
        const std::string path = directory + "/" + name;
        options.directory = path.c_str();
        options.listen = listen;
        options.peer = peer;
        options.key_file = key;
        options.segment_bytes = 1 << 20;
        options.segments = 4;
        options.lock = MIRRORBUS_LOCK_TRY;
        options.volume = "disk";
        options.volume_bytes = 8 << 20;
        check(mirrorbus_dataset_open(&options, &dataset_), "dataset");
    }
    ~Node() { close(); }
    Node(const Node &) = delete;
    Node &operator=(const Node &) = delete;

    void close()
    {
        if (dataset_)
            mirrorbus_dataset_close(dataset_);
        dataset_ = nullptr;
    }
    mirrorbus_dataset *get() const { return dataset_; }

private:
    mirrorbus_dataset *dataset_ = nullptr;
};

class Volume {
public:
    explicit Volume(const Node &node) { check(mirrorbus_volume_open(node.get(), "disk", &volume_), "volume"); }
    ~Volume() { mirrorbus_volume_close(volume_); }
    Volume(const Volume &) = delete;
    Volume &operator=(const Volume &) = delete;

    // Takes the bytes, and says what to wait for.
    std::uint64_t write(std::uint64_t block, char fill)
    {
        const std::vector<char> data(BLOCK, fill);
        std::uint64_t mark = 0;
        check(mirrorbus_volume_write(volume_, block * BLOCK, data.data(), data.size(), 10 * SECOND, &mark), "write");
        return mark;
    }
    bool acknowledged(std::uint64_t mark)
    {
        int is = 0;
        check(mirrorbus_volume_poll(volume_, mark, &is), "poll");
        return is != 0;
    }
    char read(std::uint64_t block)
    {
        std::vector<char> data(BLOCK);
        check(mirrorbus_volume_read(volume_, block * BLOCK, data.data(), data.size(), 10 * SECOND), "read");
        for (char byte : data)
            if (byte != data[0])
                throw std::runtime_error("a block of two minds");
        return data[0];
    }
    void trim(std::uint64_t block)
    {
        // Without a place for a mark it returns when it is acknowledged.
        check(mirrorbus_volume_trim(volume_, block * BLOCK, BLOCK, 10 * SECOND, nullptr), "trim");
    }
    void flush() { check(mirrorbus_volume_flush(volume_, 30 * SECOND), "flush"); }

private:
    mirrorbus_volume *volume_ = nullptr;
};

void run(char **arguments)
{
    const std::string directory = arguments[1];
    Node alpha(directory, arguments[2], "alpha", arguments[3], arguments[4]);
    Node beta(directory, arguments[2], "beta", arguments[4], arguments[3]);
    check(mirrorbus_dataset_wait_mirrored(alpha.get(), 60 * SECOND), "the two find each other");
    mirrorbus_dataset_status status{};
    status.size = sizeof status;
    check(mirrorbus_dataset_get_status(alpha.get(), &status), "status");
    Node &primary = status.role == MIRRORBUS_ROLE_PRIMARY ? alpha : beta;
    Node &secondary = &primary == &alpha ? beta : alpha;
    {
        Volume volume(primary);
        std::uint64_t last = 0;
        for (int block = 0; block < 16; block++)
            last = volume.write(static_cast<std::uint64_t>(block), static_cast<char>('a' + block));
        // Several under way, one look for all: the last mark includes the others.
        unsigned looks = 1;
        while (!volume.acknowledged(last))
            looks++;
        std::printf("16 writes are in both memories\n");
        volume.trim(3);
        volume.flush();
        std::printf("and on both disks\n");
    }
    primary.close();
    check(mirrorbus_dataset_promote(secondary.get(), 0), "promote");
    Volume volume(secondary);
    for (int block = 0; block < 16; block++)
        if (volume.read(static_cast<std::uint64_t>(block)) != (block == 3 ? '\0' : 'a' + block))
            throw std::runtime_error("the other node has something else");
    std::printf("the other node serves, and has all of it\n");
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 5) {
        std::fprintf(stderr, "usage: volume DIRECTORY KEYFILE URL_OF_ALPHA URL_OF_BETA\n");
        return 2;
    }
    try {
        run(argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
