// H: write protection.

export const WRITE_PROTECT_CASES = `
H01 later | std wp; fill [0,4) 5 | writeprotect 0; wp [0,2); read 0; write 0 9; msg
            -> OK wp=10 done=5 blocked PF(W|WP)@0x0
H02 later | std wp; fill [0,4) 5 | writeprotect 0; (t1: write 0 9); msg; unprotect 0; ?t1; peek 0; wp 0
            -> OK PF(W|WP)@0x0 OK done 9 wp=0
H03 later | std wp; fill [0,4) 5 | writeprotect 0; (t1: write 0 9); msg; unprotect 0 dontwake; ?t1; wake 0; ?t1
            -> OK PF(W|WP)@0x0 OK blocked OK done
H04 later | std wp; fill [0,4) 5 | writeprotect 0 mode=3; writeprotect 0 mode=4; writeprotect 0 len=0;
            writeprotect 0+1 len=4096; writeprotect 0 arg=bad -> EINVAL EINVAL EINVAL EINVAL EFAULT
H05 later | std; b = anon 1; g = gap 1 | writeprotect b; writeprotect g; writeprotect 0 -> ENOENT ENOENT ENOENT
H06 later | std wp | writeprotect 5; wp 5; write 5 1; msg -> OK wp=0 done nomsg
H07 later | std wp | read 5; write 6 1; msg -> done=0 done nomsg
H08 later | std wp | read 5; writeprotect 5; wp 5; (t1: write 5 1); msg -> done=0 OK wp=1 PF(W|WP)@0x5000
H09 later | std wp; fill 0 5 | writeprotect 0; (t1: write 0 9); msg; wake 0; msg
            -> OK PF(W|WP)@0x0 OK PF(W|WP)@0x0
H10 later | std wp; fill 0 5 | writeprotect 0; (madvise dontneed 0); wp 0; write 0 9; msg -> OK wp=0 done nomsg
H11 later | std missing|wp; t1: write 0 7 | msg; copy 0 wp; wp 0; msg; unprotect 0; ?t1; peek 0
            -> PF(W)@0x0 OK/4096 wp=1 PF(W|WP)@0x0 OK done 7
H12 later | std missing|wp; t1: read 0 | msg; copy 0 wp; ?t1; wp 0 -> PF(-)@0x0 OK/4096 done=1 wp=1
H13 later | std wp; fill 0 5 | writeprotect 0; (t1: write 0 9); msg; copy 0; ?t1
            -> OK PF(W|WP)@0x0 EEXIST/-17 blocked
H14 later | std wp; fill 0 5 | writeprotect 0; (t1: write 0 9); (t2: write 0 8); msg; msg; unprotect 0; ?t1; ?t2
            -> OK PF(W|WP)@0x0 PF(W|WP)@0x0 OK done done
H15 later | std wp; fill 0 5 | writeprotect 0; (t1: add 0 1); msg -> OK PF(W|WP)@0x0
H16 later | std wp; fill 0 5 | writeprotect 0; (t1: read(2) 0); msg; unprotect 0; ?t1
            -> OK PF(W|WP)@0x0 OK done=16
H17 later | std wp; fill 0 5 | writeprotect 0; write(2) 0; msg -> OK done=16 nomsg
H18 later | std wp; fill 0 5 | writeprotect 0; unregister; wp 0; write 0 9 -> OK OK wp=0 done
H19 later | std wp; fill 0 5 | writeprotect 0; (close); wp 0 -> OK wp=0
# UNREGISTER wakes those who wait for missing pages, not those who wait to write.
H20 later | std wp; fill 0 5 | writeprotect 0; (t1: write 0 9); msg; unregister; ?t1; wake 0; ?t1
            -> OK PF(W|WP)@0x0 OK blocked OK done
H21 later | std wp features=WP_UNPOPULATED | writeprotect [5,7); wp [5,7); (t1: write 5 1); msg
            -> OK wp=11 PF(W|WP)@0x5000
H22 later | std wp features=WP_UNPOPULATED; | writeprotect 5; read 5; msg; wp 5; (t1: write 5 1); msg
            -> OK done=0 nomsg wp=1 PF(W|WP)@0x5000
H23 later | std wp features=WP_UNPOPULATED | writeprotect 5; unprotect 5; wp 5; writeprotect 6;
            (madvise dontneed 6); wp 6 -> OK OK wp=0 OK wp=0
H24 later | a = shmem 8; std wp; fill 0 5 | writeprotect [0,2); wp [0,2); (t1: write 1 1); msg
            -> OK wp=11 PF(W|WP)@0x1000
H25 later | std wp features=SIGBUS; fill 0 5 | writeprotect 0; write 0 9; read 0; msg
            -> OK SIGBUS(2) done=5 nomsg
H26 later | std wp; fill 0 5 | writeprotect 0; (mprotect a r); write 0 9; msg; (mprotect a rw); (t1: write 0 9); msg
            -> OK SIGSEGV(2) nomsg PF(W|WP)@0x0
H27 later | std wp features=WP_ASYNC; fill [0,2) 5 | writeprotect [0,2); write 0 9; msg; wp [0,2)
            -> OK done nomsg wp=01
H28 later | std missing|wp features=WP_ASYNC | write 0 1; msg -> blocked PF(W)@0x0
H29 later | std wp; fill 0 5 | writeprotect 0; (fork c); c: wp 0 as=child -> OK child=0
`;
