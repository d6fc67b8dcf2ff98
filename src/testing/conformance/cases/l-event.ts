// L: events, which make the thread that causes them wait until they are read.

export const EVENT_CASES = `
L01 later | fill [0,2) 1; std features=EVENT_REMOVE; t1: madvise dontneed [0,2)
            | ?t1; res [0,2); msg; ?t1; res [0,2) -> blocked res=11 REMOVE[0x0,0x2000) done=0 res=00
L02 later | std missing|wp features=EVENT_REMOVE; copy 0; m = anon 1; fill m 6; t1: madvise dontneed 0
            | copy 1; zeropage 1; writeprotect 0; poison 1; move 1 from=m; msg
            -> EAGAIN/-11 EAGAIN/-11 EAGAIN EAGAIN/-11 EAGAIN/-11 REMOVE[0x0,0x1000)
L03 later | std features=EVENT_REMOVE; copy 0; t1: madvise dontneed 0 | wake 0; register; unregister
            -> OK OK/0x13c OK
L04 later | std; copy 0 | madvise dontneed 0; msg -> done=0 nomsg
L05 later | uffd features=EVENT_REMOVE; register [2,4); t1: madvise dontneed a | msg; ?t1; msg
            -> REMOVE[0x2000,0x4000) done=0 nomsg
L06 later | std features=EVENT_REMOVE; copy 0; t1: madvise free 0
            | msg; ?t1; (t2: madvise dontneed_locked 0); msg; ?t2
            -> REMOVE[0x0,0x1000) done=0 REMOVE[0x0,0x1000) done=0
L07 later | a = shmem 8; fill [0,2) 1; std features=EVENT_REMOVE; t1: madvise remove [0,2)
            | msg; ?t1; (t2: read 0); msg -> REMOVE[0x0,0x2000) done=0 PF(-)@0x0
L08 later | fill 0 1; std features=EVENT_REMOVE; t1: madvise dontneed 0 | ?t1; (close); ?t1; res 0
            -> blocked done=0 res=0
L09 later | std features=EVENT_UNMAP; t1: munmap [1,3) | ?t1; mapped 1; msg; ?t1
            -> blocked unmapped UNMAP[0x1000,0x3000) done=0
L10 later | std features=EVENT_UNMAP; t1: mmap 4 | msg; ?t1; reg 4 -> UNMAP[0x4000,0x5000) done=0 reg=none
L11 later | std features=EVENT_UNMAP; t1: mremap a pages=4 | msg; ?t1 -> UNMAP[0x4000,0x8000) done=0
L12 later | std | munmap [1,3); msg -> done=0 nomsg
L13 later | std features=EVENT_REMAP; copy 0; d = gap 8; t1: mremap a to=d
            | ?t1; msg; to d; ?t1; (t2: read d.5); msg; peek d.0
            -> blocked REMAP(0x0,len=0x8000) to=ok done=0 PF(-)@0x5000 1
L14 later | std features=EVENT_REMAP; d = gap 8; t1: mremap a to=d | copy d.0 -> EAGAIN/-11
L15 later | std features=EVENT_REMAP | mremap a pages=4; msg -> done=0 nomsg
L16 later | std features=EVENT_FORK | fork c; msg; adopt v; (c.t1: read 5); msg via=v; copy 5 via=v;
            ?c.t1 as=child; res 5 -> blocked FORK fd=ok PF(-)@0x5000 OK/4096 child=1 res=0
L17 later | uffd features=EVENT_FORK; fork c | msg -> nomsg
L18 later | std features=EVENT_FORK; fork c; msg; adopt v | api via=v; (kill c); copy 0 via=v -> EINVAL ESRCH/~
# The event happens first, and the fault is read first.
L19 later | std features=EVENT_REMOVE; copy 0; t1: madvise dontneed 0; t2: read 3 | fdread 64 show
            -> 64 PF(-)@0x3000 REMOVE[0x0,0x1000)
L20 later | std features=EVENT_REMOVE; copy 0; t1: madvise dontneed 0 | poll; pending -> poll=IN pending=0,total=0
L21 later | std features=EVENT_REMOVE; t1: madvise dontneed 3; t2: madvise dontneed 1 | msg; msg
            -> REMOVE[0x3000,0x4000) REMOVE[0x1000,0x2000)
L22 later | fork c; c: std features=EVENT_UNMAP|EVENT_REMOVE | c: exit 7 -> exit=7
L23 later | std features=EVENT_REMAP|EVENT_UNMAP; d = gap 8; t1: mremap a to=d | msg; msg; msg; ?t1; reg d
            -> REMAP(0x0,len=0x8000) UNMAP[0x0,0x8000) nomsg done=0 reg=M
L24 later | std features=EVENT_UNMAP; t1: read 0 | msg; (t2: munmap 0); msg; ?t2; ?t1; wake 0; ?t1
            -> PF(-)@0x0 UNMAP[0x0,0x1000) done=0 blocked OK SIGSEGV(1)
L25 later | std features=EVENT_REMOVE; copy 0; t1: madvise dontneed 0 | read 0; (t2: read 5); ?t2; msg; msg; ?t1
            -> done=1 blocked PF(-)@0x5000 REMOVE[0x0,0x1000) done=0
`;
