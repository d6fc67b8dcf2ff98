// J: POISON. The signal's code is 4 (BUS_MCEERR_AR) on kernels with memory-failure support, 2 on others.
// K: MOVE, from an area m whose first four pages hold 6.

export const POISON_CASES = `
J01 later | std; t1: read 0 | msg; poison 0; ?t1 -> PF(-)@0x0 OK/4096 SIGBUS(2|4)
J02 later | std | poison 0; write 0 1; write(2) 0; msg -> OK/4096 SIGBUS(2|4) ret:EFAULT nomsg
J03 later | std; copy 1 | poison 0; poison 0; poison 1; zeropage 0 -> OK/4096 EEXIST/-17 EEXIST/-17 EEXIST/-17
J04 later | std; b = anon 1 | poison 0 mode=2; poison 0 len=0; poison 0+1 len=4096; poison b; poison 0 arg=bad
            -> EINVAL/~ EINVAL/~ EINVAL/~ ENOENT/-2 EFAULT
J05 later | std; copy 2 | poison [0,4) -> EAGAIN/8192
J06 later | std | poison 0; (madvise dontneed 0); read 0; msg -> OK/4096 blocked PF(-)@0x0
J07 later | std; t1: read 0 | poison 0 dontwake; ?t1; wake 0; ?t1 -> OK/4096 blocked OK SIGBUS(2|4)
J08 later | std | poison 0; unregister; read 0 -> OK/4096 OK SIGBUS(2|4)
J09 later | std | poison 0; (mprotect a none); read 0; (mprotect a rw); read 0
            -> OK/4096 SIGSEGV(2) SIGBUS(2|4)
`;

export const MOVE_CASES = `
K01 later | std; m = anon 8; fill m[0,4) 6; t1: read 0 | msg; move 0 from=m.0; ?t1; res m.0; peek m.0
            -> PF(-)@0x0 OK/4096 done=6 res=0 0
K02 later | std; m = anon 8; fill m[0,4) 6 | move 0 from=m.0; move 0 from=m.1; move 1 from=m.5;
            move 1 from=m.5 holes; res [0,2) -> OK/4096 EEXIST/-17 ENOENT/-2 OK/4096 res=10
K03 later | std; m = anon 8; fill m[0,4) 6 | move 0+1 from=m.0 len=4096; move 0 from=m+1; move 0 from=m.0 len=0;
            move 0 from=m.0 mode=4; move 0 from=m.0 arg=bad -> EINVAL/~ EINVAL/~ EINVAL/~ EINVAL/~ EFAULT
K04 later | std; m = anon 8; fill m[0,4) 6; b = anon 1; g = gap 1
            | move b from=m.0; move g from=m.0; move 0 from=g -> EINVAL/-22 ENOENT/-2 ENOENT/-2
K05 later | std; m = anon 8; fill m[0,4) 6 | move [7,9) from=m.0; move [0,2) from=m.7 -> EINVAL/-22 EINVAL/-22
K06 later | std; m = anon 8; fill m[0,4) 6 | move [0,4) from=m.2; res [0,4); res m[2,4)
            -> EAGAIN/8192 res=1100 res=00
K07 later | std; m = anon 8; fill m[0,4) 6; t1: read 0 | move 0 from=m.0 dontwake; ?t1; wake 0; ?t1
            -> OK/4096 blocked OK done=6
K08 later | std; r = anon 1; fill r 6; mprotect r r; h = shmem 1; fill h 6; l = anon 1; fill l 6; mlock l
            | move 0 from=r; move 0 from=h; move 0 from=l -> EINVAL/-22 EINVAL/-22 EINVAL/-22
K09 later | std; copy 0 | move 1 from=0; res [0,2); read 1 -> OK/4096 res=01 done=1
K10 later | std; m = anon 8; fill m.0 6; fork c | move 0 from=m.0 -> EBUSY/-16
K11 later | std; m = anon 8; fill m.0 6; fork c | c: move 0 from=m.0 -> EINVAL/~
K12 later | std; m = anon 8; fill m.0 6; copy 0 | move 0 from=m.5 -> EEXIST/-17
`;
