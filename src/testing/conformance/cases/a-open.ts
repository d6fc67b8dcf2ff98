// A: opening and the handshake. Truth: fs/userfaultfd.c (6.18), every line measured on the kernel.

export const OPEN_CASES = `
A01 seed  | open u; fdflags cloexec nonblock accmode -> OK cloexec=0 nonblock=0 accmode=0
            @4.3 OK cloexec=0 nonblock=0 accmode=2
A02 seed  | open u cloexec nonblock; fdflags cloexec nonblock -> OK cloexec=1 nonblock=1
A03 seed  | open u 2; open u 0x400; open u -1 -> EINVAL EINVAL EINVAL
A04 later | open u user; open v user cloexec nonblock -> OK OK
A05 later | drop ptrace | open u; open v user nonblock -> EPERM OK
A06 later | drop ptrace | open u 2; open u user 2 -> EPERM EINVAL
# The seed took a descriptor before it looked at the flags.
A07 seed  | limit descriptors | open u; open u 2 -> EMFILE EINVAL @4.3 EMFILE EMFILE
A08 later | open u cloexec nonblock from=device; fdflags cloexec nonblock; api -> OK cloexec=1 nonblock=1 OK
A09 later | device d | ioctl NEW 2 via=d; ioctl 0xaa01 0 via=d; api via=d; fdread 32 via=d
            -> EINVAL EINVAL EINVAL EINVAL
A10 seed  | open u nonblock | register errno; unregister; copy 0 errno; zeropage 0 errno; wake 0;
            register arg=bad; ioctl 0xaa55 -> EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
A11 seed  | open u | fdread 32; fdread 16 -> EINVAL EINVAL
A12 seed  | open u nonblock; open v | poll; poll via=v -> poll=ERR poll=ERR
A13 seed  | open u nonblock | api version=0xab struct -> EINVAL {0x0,0x0,0x0}
A14 seed  | open u nonblock | api features=1<<63 struct -> EINVAL {0x0,0x0,0x0}
A15 later | open u nonblock | api features=$UNKNOWN_FEATURE; api features=1<<31; api features=1<<32
            -> EINVAL EINVAL EINVAL
A16 seed  | open u nonblock | api version=0xab; api -> EINVAL OK
A17 seed  | open u nonblock | api struct -> OK {0xaa,$ALL_FEATURES,$API_IOCTLS}
            @4.3 OK {0xaa,0x0,0x8000000000000003}
# The seed refused a second handshake before it looked at the struct, which keeps what the case put there.
A18 seed  | open u nonblock | api struct; api struct; register
            -> OK {0xaa,$ALL_FEATURES,$API_IOCTLS} EINVAL {0x0,0x0,0x0} OK/0x13c
            @4.3 OK {0xaa,0x0,0x8000000000000003} EINVAL {0xaa,0x0,0x5a5a} OK/0x1c
A19 seed  | open u nonblock | api arg=bad; api; api arg=bad -> EFAULT OK EFAULT @4.3 EFAULT OK EINVAL
A20 seed  | open u nonblock | api arg=readonly; poll; api -> EFAULT poll=ERR OK
A21 later | drop ptrace; open u user nonblock | api features=EVENT_FORK struct; api
            -> EPERM {0x0,0x0,0x0} OK
A22 later | drop ptrace; open u user nonblock
            | api features=EVENT_FORK|1<<31; api version=0xab features=EVENT_FORK -> EPERM EINVAL
A23 later | open u nonblock | api features=$ALL_FEATURES struct -> OK {0xaa,$ALL_FEATURES,$API_IOCTLS}
A24 seed  | std | ioctl 0xaa55; ioctl 0xc018aa00; ioctl FIONREAD -> EINVAL EINVAL EINVAL
A25 seed  | std | call write u scratch 8; call mmap 0 4096 PROT_READ MAP_PRIVATE u 0; call lseek u 5 0 as=lseek
            -> EBADF ENODEV lseek=0 @4.3 EINVAL ENODEV lseek=0
A26 seed  | std; close | api -> EBADF
A27 later | uffd features=WP_ASYNC | fdinfo -> API: aa:8000a000:$CONTEXT_IOCTLS
`;
