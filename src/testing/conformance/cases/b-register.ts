// B: REGISTER and UNREGISTER.

export const REGISTER_CASES = `
B01 seed  | uffd | register; reg -> OK/0x13c reg=M @4.3 OK/0x1c reg=M
B02 later | uffd | register wp; register wp|missing; reg -> OK/0x17c OK/0x17c reg=MW
B03 later | uffd | register minor; register minor|missing; reg -> EINVAL/~ EINVAL/~ reg=none
B04 seed  | uffd | register mode=0; register mode=$UNKNOWN_MODE; register mode=1|$UNKNOWN_MODE;
            register mode=1|1<<40 -> EINVAL/~ EINVAL/~ EINVAL/~ EINVAL/~
B05 seed  | uffd | register a len=0; register 0 len=4097; register 0+1 len=4096 -> EINVAL/~ EINVAL/~ EINVAL/~
B06 seed  | uffd | register @top; register @kernel; register 0 len=0xfffffffffffff000
            -> EINVAL/~ EINVAL/~ EINVAL/~
B07 seed  | uffd | register arg=bad -> EFAULT
# The seed answered ENOMEM only where nothing at all lies above; here something does.
B08 seed  | uffd; g = gap 4 | register g -> EINVAL/~
B09 seed  | uffd; munmap 4 | register; reg 0; reg 5 -> OK/0x13c reg=M reg=M @4.3 OK/0x1c reg=M reg=M
B10 seed  | uffd; munmap [0,2); munmap [6,8) | register [0,4); register [4,8) -> OK/0x13c OK/0x13c
            @4.3 OK/0x1c OK/0x1c
B11 seed  | uffd; f = file; g = file shared | register f; register g -> EINVAL/~ EINVAL/~
B12 seed  | uffd; a = anon 4; f = file at=2 | register; reg 0; reg 3 -> EINVAL/~ reg=none reg=none
B13 seed  | uffd; b = anon 4 prot=r; c = anon 4 prot=none | register b; register c -> OK/0x13c OK/0x13c
            @4.3 OK/0x1c OK/0x1c
B14 later | uffd; b = shmem 4 readonly; c = shmem 4 readonly private | register b; register c
            -> EPERM/~ OK/0x13c
B15 later | uffd; a = shared 8 | register missing; register minor; register missing|wp|minor
            -> OK/0x13c OK/0x1bc OK/0x1fc
B16 later | uffd; a = hugetlb 1 | register missing; register missing|wp|minor -> OK/0x10c OK/0x1cc
B17 later | uffd; a = hugetlb 2 | register 0 len=4096; register 0+4096 len=0x200000 -> EINVAL/~ EINVAL/~
B18 seed  | uffd; register [0,4); uffd v | register [0,4) via=v; register [3,5) via=v; register [4,6) via=v
            -> EBUSY/~ EBUSY/~ OK/0x13c @4.3 EBUSY/~ EBUSY/~ OK/0x1c
B19 seed  | uffd | register; register; reg -> OK/0x13c OK/0x13c reg=M @4.3 OK/0x1c OK/0x1c reg=M
B20 later | uffd | register missing; register missing|wp; reg -> OK/0x13c OK/0x17c reg=MW
B21 later | uffd | register missing; register wp; reg; read 0 -> OK/0x13c OK/0x17c reg=W done=0
B22 later | uffd | register missing|wp; register missing; reg; writeprotect 0 -> OK/0x17c OK/0x13c reg=MW OK
B23 seed  | fill 0 5; std | read 0; msg -> done=5 nomsg
B24 seed  | uffd; register [2,4) | read 1; read 4; read 2; msg -> done=0 done=0 blocked PF(-)@0x2000
B25 seed  | uffd | register arg=readonly; reg -> EFAULT reg=M
B26 seed  | std | unregister; read 0 -> OK done=0
B27 seed  | uffd | unregister -> OK
B28 seed  | uffd; g = gap 4; f = file
            | unregister g; unregister f; unregister a len=0; unregister 0+1 len=4096; unregister arg=bad
            -> EINVAL EINVAL EINVAL EINVAL EFAULT
B29 seed  | std | unregister [2,4); read 2; read 5; msg -> OK done=0 blocked PF(-)@0x5000
# The seed's UNREGISTER left the waiters asleep.
B30 seed  | std; t1: read 0 | msg; unregister; ?t1 -> PF(-)@0x0 OK done=0 @4.3 PF(-)@0x0 OK blocked
B31 seed  | std; t1: read 0; t2: read 1 | unregister 0; ?t1; ?t2 -> OK done=0 blocked @4.3 OK blocked blocked
B32 later | uffd; register [0,4); uffd v; register [4,6) via=v
            | unregister [0,4) via=v; unregister [0,6); reg 0; reg 4 -> EINVAL EINVAL reg=M reg=M
B33 seed  | std; munmap a; mmap a | reg; read 0 -> reg=none done=0
B34 seed  | std | unregister; register; read 0 -> OK OK/0x13c blocked @4.3 OK OK/0x1c blocked
B35 seed  | std; close; uffd v | register via=v -> OK/0x13c @4.3 OK/0x1c
B36 later | uffd features=WP_ASYNC; f = file | register f wp; register f wp|missing -> OK/0x17c EINVAL/~
B37 later | uffd; d = droppable 1; v = vdso | register d; register v -> EINVAL/~ EINVAL/~
B38 later | uffd; b = anon 8; mlock b.0; c = anon 8; madvise guard_install c.0 | register b; register c
            -> OK/0x13c OK/0x13c
`;
