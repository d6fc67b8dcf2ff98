// E: COPY. Page i of the source s is full of i + 1.

export const COPY_CASES = `
E01 seed  | std; t1: read 0 | msg; copy 0; ?t1 -> PF(-)@0x0 OK/4096 done=1
E02 seed  | std | copy [0,3); peek [0,3) -> OK/12288 1 2 3
E03 seed  | std | copy 0; copy 0 -> OK/4096 EEXIST/-17
E04 seed  | std | copy 0+1 len=4096; copy 0 len=4097; copy 0 len=0; copy 0 len=100
            -> EINVAL/~ EINVAL/~ EINVAL/~ EINVAL/~
E05 seed  | std | copy 0 mode=4 -> EINVAL/~
E06 seed  | std | copy 0 from=s+3; peek 0; peek 0+4095 -> OK/4096 1 2
E07 seed  | std; n = anon 1 prot=none | copy 0 from=bad; copy 0 from=null; copy 0 from=n; res 0
            -> EFAULT/-14 EFAULT/-14 EFAULT/-14 res=0
E08 seed  | std | copy 0 from=@kernel; copy 0 from=@wrap -> EINVAL/~ EINVAL/~
E09 seed  | std; b = anon 1; g = gap 1 | copy b; copy g; copy @kernel -> ENOENT/-2 ENOENT/-2 EINVAL/~
            @4.3 EINVAL/-22 EINVAL/-22 EINVAL/~
E10 seed  | uffd; register [0,4) | copy [3,5); res [3,5) -> ENOENT/-2 res=00 @4.3 EINVAL/-22 res=00
E11 seed  | std | copy 2; copy [0,4); res [0,4) -> OK/4096 EAGAIN/8192 res=1110
E12 seed  | std | copy 0; copy [0,3); res [0,3) -> OK/4096 EEXIST/-17 res=100
E13 seed  | std; munmap s.2 | copy [0,4); res [0,4); copy 2 from=s.2 -> EAGAIN/8192 res=1100 EFAULT/-14
E14 seed  | std; t1: read 0; t2: read 3; copy 2 | copy [0,4); ?t1; ?t2 -> EAGAIN/8192 done=1 blocked
E15 seed  | std; t1: read 0 | copy 0 dontwake; ?t1; wake 0; ?t1 -> OK/4096 blocked OK done=1
E16 seed  | std; t1: read 0 | copy 1; ?t1 -> OK/4096 blocked
E17 seed  | std; t1: read 0 | copy 0 dontwake; copy 0; ?t1 -> OK/4096 EEXIST/-17 blocked
E18 seed  | std | copy 0 arg=bad -> EFAULT
E19 seed  | std; n = anon 1 | copy 0 from=n; peek 0 -> OK/4096 0
E20 seed  | std | copy 0; read 0; msg -> OK/4096 done=1 nomsg
E21 seed  | std; mprotect a r | copy 0; read 0; write 0 1 -> OK/4096 done=1 SIGSEGV(2)
E22 later | std | copy 0 wp; res 0 -> EINVAL/-22 res=0
E23 seed  | std; b = anon 1; copy 0 | copy b from=bad; copy 0 from=bad; copy b mode=4
            -> ENOENT/-2 EFAULT/-14 EINVAL/~ @4.3 EINVAL/-22 EFAULT/-14 EINVAL/~
E24 seed  | std; t1: read 0 | copy 0 arg=readonly; res 0; ?t1; wake 0; ?t1 -> EFAULT res=1 blocked OK done=1
E25 later | a = shmem 8; x = alias a; std | copy 0; peek x.0 -> OK/4096 1
E26 later | a = shmem 8 private; x = alias a; std | copy 0; peek 0; peek x.0 -> OK/4096 1 0
E27 later | a = shmem 8; x = alias a; fill x.0 4; std | copy 0; zeropage 0 -> EEXIST/-17 EEXIST/-17
E28 later | a = shmem 8 size=4; std | copy 6; copy [3,5) -> EFAULT/-14 EAGAIN/4096
E29 later | a = hugetlb 1; z = anon 512; std | copy 0 len=4096; copy 0 from=z; copy 0 from=z
            -> EINVAL/-22 OK/2097152 EEXIST/-17
E30 later | std user | copy 0 from=4; msg -> EFAULT/-14 nomsg
E31 later | std; copy 0; t = thp 512; fill t.0 5; register t; h = hugetlb 1; fill h 5; register h
            | copy 0 from=bad; copy t.3 from=bad; copy h from=bad -> EFAULT/-14 EEXIST/-17 EEXIST/-17
`;
