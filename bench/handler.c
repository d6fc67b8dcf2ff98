/* The yardstick: the fault handler that everybody writes first, after userfaultfd(2): read one message, copy one
 * page, again. It takes the guest's userfaultfd with pidfd_getfd(2), and its bytes from a mapped image.
 *
 *   handler block PID FD CPU IMAGE BASE          waits in read(2)
 *   handler spin  PID FD CPU IMAGE BASE          asks again and again, without waiting
 *   handler bulk  PID FD CPU IMAGE BASE LEN PIECE   installs [BASE, BASE+LEN) and prints nanoseconds
 *   handler listen SOCKET IMAGE CPU              takes hand-overs of Firecracker, a process a guest; prints each one's faults and processor time
 *   handler set    SOCKET IMAGE CPU LIST         the same, and installs a working set first: LIST is its pages, 32 bits each, in order
 *   handler keep   SOCKET IMAGE CPU              takes one, and keeps a worker and a spare for it; prints "worker PID"
 *   handler crowd  LIST IMAGE CPU                many guests in one thread by epoll; lines of LIST: PID FD BASE
 *
 * Prints "ready" once it serves. CPU -1: not pinned. The byte at BASE + n is the image's byte n. Ends by SIGKILL. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "handler: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void serve(int uffd, char *image, uint64_t base, int spin) {
    struct uffd_msg message;
    for (;;) {
        ssize_t got = read(uffd, &message, sizeof message);
        if (got < 0) {
            if (spin && errno == EAGAIN) continue;
            die("read");
        }
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        uint64_t page = message.arg.pagefault.address & ~4095ULL;
        struct uffdio_copy copy = {.dst = page, .src = (uint64_t)(image + (page - base)), .len = 4096};
        if (ioctl(uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST) die("UFFDIO_COPY");
    }
}

static void bulk(int uffd, char *image, uint64_t base, uint64_t length, uint64_t piece) {
    long long begin = now_ns();
    for (uint64_t at = 0; at < length; at += piece) {
        struct uffdio_copy copy = {.dst = base + at, .src = (uint64_t)(image + at), .len = piece};
        if (ioctl(uffd, UFFDIO_COPY, &copy) < 0) die("UFFDIO_COPY");
    }
    printf("%lld\n", now_ns() - begin);
}

/* ── Firecracker's hand-over, as the common example handlers take it ── */

struct guest {
    int uffd, connection, count;
    struct { uint64_t base, size, offset; } region[16];
};

static char *map_image(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(path);
    char *image = mmap(0, about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (image == MAP_FAILED) die("mmap");
    return image;
}

static void pin(int cpu) {
    if (cpu < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
}

static int listen_at(const char *path) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 256) < 0) die(path);
    return fd;
}

/* One recvmsg, as they do it: the message comes whole from a VMM that means well. */
static void take(int connection, struct guest *guest) {
    char text[8192], control[CMSG_SPACE(sizeof(int))];
    struct iovec io = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (got <= 0 || header == NULL) die("recvmsg");
    text[got] = 0;
    memcpy(&guest->uffd, CMSG_DATA(header), sizeof(int));
    guest->connection = connection;
    guest->count = 0;
    for (char *at = text; (at = strstr(at, "{\"base_host_virt_addr\"")) != NULL && guest->count < 16; at++) {
        unsigned long base, size, offset;
        if (sscanf(at, "{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu", &base, &size, &offset) != 3) die(at);
        guest->region[guest->count].base = base;
        guest->region[guest->count].size = size;
        guest->region[guest->count++].offset = offset;
    }
}

/* poll, read, copy one page, until the VMM hangs up; answers the number of faults. */
static long serve_guest(struct guest *guest, char *image) {
    struct pollfd ready[2] = {{.fd = guest->uffd, .events = POLLIN}, {.fd = guest->connection, .events = 0}};
    for (long faults = 0;;) {
        if (poll(ready, 2, -1) < 0) die("poll");
        if ((ready[0].revents & POLLIN) == 0) return faults;
        struct uffd_msg message;
        if (read(guest->uffd, &message, sizeof message) < 0) {
            if (errno == EAGAIN) continue;
            die("read");
        }
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        faults++;
        uint64_t page = message.arg.pagefault.address & ~4095ULL;
        for (int index = 0; index < guest->count; index++) {
            uint64_t into = page - guest->region[index].base;
            if (page < guest->region[index].base || into >= guest->region[index].size) continue;
            struct uffdio_copy copy = {.dst = page, .src = (uint64_t)(image + guest->region[index].offset + into), .len = 4096};
            if (ioctl(guest->uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST) {
                if (errno == ESRCH) return faults;
                die("UFFDIO_COPY");
            }
            if (copy.copy == -EEXIST) {
                struct uffdio_range range = {.start = page, .len = 4096};
                ioctl(guest->uffd, UFFDIO_WAKE, &range);
            }
        }
    }
}

/* A recorded working set, as fast as it can be: run for run, from memory, in the order in which it was touched. */
static void install_set(struct guest *guest, char *image, const uint32_t *pages, long count) {
    for (long at = 0, next; at < count; at = next) {
        for (next = at + 1; next < count && pages[next] == pages[next - 1] + 1 && next - at < 64; next++) {}
        uint64_t offset = pages[at] * 4096ULL;
        for (int index = 0; index < guest->count; index++) {
            uint64_t into = offset - guest->region[index].offset;
            if (offset < guest->region[index].offset || into >= guest->region[index].size) continue;
            struct uffdio_copy copy = {.dst = guest->region[index].base + into, .src = (uint64_t)(image + offset), .len = (next - at) * 4096ULL};
            ioctl(guest->uffd, UFFDIO_COPY, &copy);
        }
    }
}

static const uint32_t *map_list(const char *path, long *count) {
    int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(path);
    *count = about.st_size / 4;
    const uint32_t *list = mmap(0, about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (list == MAP_FAILED) die("mmap");
    return list;
}

static void serve_all(int listener, char *image, const uint32_t *set, long count) {
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) die("accept");
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            struct guest guest;
            take(connection, &guest);
            install_set(&guest, image, set, count);
            long faults = serve_guest(&guest, image);
            struct timespec used;
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
            printf("faults %ld seconds %ld.%09ld\n", faults, used.tv_sec, used.tv_nsec);
            exit(0);
        }
        close(connection);
    }
}

/* A worker that waits for one byte, then wakes whoever waits in the guest, and serves. */
static pid_t make_spare(struct guest *guest, char *image, int *go) {
    int ends[2];
    if (pipe(ends) < 0) die("pipe");
    pid_t worker = fork();
    if (worker != 0) {
        close(ends[0]);
        *go = ends[1];
        return worker;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[1]);
    char byte;
    if (read(ends[0], &byte, 1) != 1) exit(0);
    for (int index = 0; index < guest->count; index++) {
        struct uffdio_range range = {.start = guest->region[index].base, .len = guest->region[index].size};
        ioctl(guest->uffd, UFFDIO_WAKE, &range);
    }
    serve_guest(guest, image);
    exit(0);
}

static void keep(int listener, char *image) {
    struct guest guest;
    take(accept4(listener, NULL, NULL, SOCK_CLOEXEC), &guest);
    int go;
    pid_t active = make_spare(&guest, image, &go);
    for (;;) {
        write(go, "", 1);
        close(go);
        pid_t spare = make_spare(&guest, image, &go);
        printf("worker %d\n", active);
        fflush(stdout);
        int status;
        while (waitpid(-1, &status, 0) != active) {}
        if (WIFEXITED(status)) return;
        active = spare;
    }
}

/* ── Many guests, one thread ── */

static int take_uffd(int pid, int fd) {
    int process = syscall(SYS_pidfd_open, pid, 0);
    if (process < 0) die("pidfd_open");
    int uffd = syscall(SYS_pidfd_getfd, process, fd, 0);
    if (uffd < 0) die("pidfd_getfd");
    close(process);
    return uffd;
}

/* Every message that one of them has, then the next one that is ready. */
static void serve_crowd(const char *list, char *image) {
    enum { GUESTS_MAX = 4096 };
    static struct { int uffd; uint64_t base; } guests[GUESTS_MAX];
    FILE *lines = fopen(list, "r");
    int epoll = epoll_create1(EPOLL_CLOEXEC), count = 0, pid, fd;
    unsigned long base;
    if (lines == NULL) die(list);
    for (; count < GUESTS_MAX && fscanf(lines, "%d %d %lu", &pid, &fd, &base) == 3; count++) {
        guests[count].uffd = take_uffd(pid, fd);
        guests[count].base = base;
        fcntl(guests[count].uffd, F_SETFL, fcntl(guests[count].uffd, F_GETFL) | O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = count};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, guests[count].uffd, &event) < 0) die("epoll_ctl");
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[64];
        int found = epoll_wait(epoll, ready, 64, -1);
        for (int index = 0; index < found; index++) {
            int uffd = guests[ready[index].data.u32].uffd;
            base = guests[ready[index].data.u32].base;
            struct uffd_msg message;
            while (read(uffd, &message, sizeof message) == sizeof message) {
                if (message.event != UFFD_EVENT_PAGEFAULT) continue;
                uint64_t page = message.arg.pagefault.address & ~4095ULL;
                struct uffdio_copy copy = {.dst = page, .src = (uint64_t)(image + (page - base)), .len = 4096};
                if (ioctl(uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST) die("UFFDIO_COPY");
            }
        }
    }
}

static int serve_socket(int argc, char **argv) {
    pin(atoi(argv[4]));
    char *image = map_image(argv[3]);
    long count = 0;
    const uint32_t *set = argc > 5 ? map_list(argv[5], &count) : NULL;
    if (strcmp(argv[1], "crowd") == 0) serve_crowd(argv[2], image);
    int listener = listen_at(argv[2]);
    printf("ready\n");
    fflush(stdout);
    if (strcmp(argv[1], "keep") == 0) keep(listener, image);
    else serve_all(listener, image, set, count);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 5) return serve_socket(argc, argv);
    if (argc == 6 && strcmp(argv[1], "set") == 0) return serve_socket(argc, argv);
    if (argc < 7) return 2;
    pin(atoi(argv[4]));
    int uffd = take_uffd(atoi(argv[2]), atoi(argv[3]));
    char *image = map_image(argv[5]);
    uint64_t base = strtoull(argv[6], 0, 0);

    int spin = strcmp(argv[1], "spin") == 0;
    int flags = fcntl(uffd, F_GETFL);
    fcntl(uffd, F_SETFL, spin ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
    if (strcmp(argv[1], "bulk") == 0) {
        if (argc < 9) return 2;
        bulk(uffd, image, base, strtoull(argv[7], 0, 0), strtoull(argv[8], 0, 0));
        return 0;
    }
    printf("ready\n");
    fflush(stdout);
    serve(uffd, image, base, spin);
}
