/* The yardstick: the fault handler that everybody writes first, after userfaultfd(2): read one message, copy one
 * page, again. It takes the guest's userfaultfd with pidfd_getfd(2), and its bytes from a mapped image.
 *
 *   handler block PID FD CPU IMAGE BASE          waits in read(2)
 *   handler spin  PID FD CPU IMAGE BASE          asks again and again, without waiting
 *   handler bulk  PID FD CPU IMAGE BASE LEN PIECE   installs [BASE, BASE+LEN) and prints nanoseconds
 *
 * Prints "ready" once it serves. CPU -1: not pinned. The byte at BASE + n is the image's byte n. Ends by SIGKILL. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

int main(int argc, char **argv) {
    if (argc < 7) return 2;
    int cpu = atoi(argv[4]);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
    }
    int process = syscall(SYS_pidfd_open, atoi(argv[2]), 0);
    if (process < 0) die("pidfd_open");
    int uffd = syscall(SYS_pidfd_getfd, process, atoi(argv[3]), 0);
    if (uffd < 0) die("pidfd_getfd");

    int file = open(argv[5], O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(argv[5]);
    char *image = mmap(0, about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (image == MAP_FAILED) die("mmap");
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
