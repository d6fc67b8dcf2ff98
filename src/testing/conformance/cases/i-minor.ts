// I: minor faults and CONTINUE. x is another mapping of the same object.

export const MINOR_CASES = `
I01 later | a = shmem 8; x = alias a; std minor; fill x.0 7; t1: read 0 | ?t1; msg; (fill x.0 8); continue 0; ?t1
            -> blocked PF(MINOR)@0x0 OK/4096 done=8
I02 later | a = shmem 8; x = alias a; std minor; fill x.0 7; t1: write 0 9 | msg; continue 0; ?t1; peek x.0
            -> PF(W|MINOR)@0x0 OK/4096 done 9
I03 later | a = shmem 8; std minor | read 0; msg; res 0 -> done=0 nomsg res=1
I04 later | a = shmem 8; x = alias a; std minor; fill x.1 7; b = shmem 1
            | continue 0; continue 1; continue 1; continue b -> EFAULT/-14 OK/4096 EEXIST/-17 ENOENT/-2
I05 later | a = shmem 8; std minor | continue 0+1 len=4096; continue 0 len=0; continue 0 mode=4; continue 0 arg=bad
            -> EINVAL/~ EINVAL/~ EINVAL/~ EFAULT
I06 later | a = shmem 8; x = alias a; std minor; fill x.0 7; b = anon 1; register b | continue 0 wp; continue b
            -> EINVAL/-22 EINVAL/-22
I07 later | a = shmem 8; x = alias a; std minor; fill x[0,2) 7 | continue [0,4); res [0,4)
            -> EAGAIN/8192 res=1100
I08 later | a = shmem 8; x = alias a; std minor; fill x.0 1; t1: read 0
            | msg; continue 0 dontwake; ?t1; wake 0; ?t1 -> PF(MINOR)@0x0 OK/4096 blocked OK done=1
I09 later | a = shmem 8; x = alias a; std missing|minor; fill x.1 7; t1: read 0; t2: read 1 | msg; msg
            -> PF(-)@0x0 PF(MINOR)@0x1000
I10 later | a = shmem 8; x = alias a; std minor|wp; fill x.0 1; t1: read 0
            | msg; continue 0 wp; ?t1; wp 0; (t1: write 0 9); msg
            -> PF(MINOR)@0x0 OK/4096 done=1 wp=1 PF(W|WP)@0x0
I11 later | a = shmem 8 private; x = alias a; std minor; fill x.0 7; t1: write 0 9
            | msg; continue 0; ?t1; peek 0; peek x.0 -> PF(W|MINOR)@0x0 OK/4096 done 9 7
I12 later | a = shmem 8; x = alias a; std minor; fill x.0 1; t1: read 0 | msg; unregister; ?t1; wake 0; ?t1
            -> PF(MINOR)@0x0 OK blocked OK done=1
I13 later | a = shmem 8; x = alias a; std minor; fill x.1 7 | copy 0; copy 1 -> OK/4096 EEXIST/-17
`;
