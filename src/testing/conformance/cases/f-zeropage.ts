// F: ZEROPAGE. G: WAKE.

export const ZEROPAGE_CASES = `
F01 seed  | std; t1: read 0 | msg; zeropage 0; ?t1 -> PF(-)@0x0 OK/4096 done=0
F02 seed  | std; t1: write 0 7 | msg; zeropage 0; ?t1; peek 0; msg -> PF(W)@0x0 OK/4096 done 7 nomsg
F03 seed  | std | zeropage 0; zeropage 0; copy 0 -> OK/4096 EEXIST/-17 EEXIST/-17
F04 seed  | std | zeropage 0+1 len=4096; zeropage 0 len=0; zeropage 0 len=4097; zeropage 0 mode=2
            -> EINVAL/~ EINVAL/~ EINVAL/~ EINVAL/~
F05 seed  | std; b = anon 1; g = gap 1 | zeropage b; zeropage g; zeropage 0 arg=bad
            -> ENOENT/-2 ENOENT/-2 EFAULT @4.3 EINVAL/-22 EINVAL/-22 EFAULT
F06 seed  | std; copy 2 | zeropage [0,4); res [0,4) -> EAGAIN/8192 res=1110
F07 seed  | std; t1: read 0 | zeropage 0 dontwake; ?t1; wake 0; ?t1 -> OK/4096 blocked OK done=0
F08 seed  | std | zeropage 0; write 0 9; read 0; msg -> OK/4096 done done=9 nomsg
F09 later | a = shmem 8; x = alias a; std | zeropage 0; (fill x.0 3); read 0 -> OK/4096 done=3
F10 later | a = hugetlb 1; std | zeropage 0 -> EINVAL/-22
`;

export const WAKE_CASES = `
G01 seed  | std; b = anon 1; g = gap 1 | wake 0; wake b; wake g -> OK OK OK
G02 seed  | std | wake 0 len=0; wake 0+1 len=4096; wake 0 len=4097; wake @kernel; wake 0 arg=bad
            -> EINVAL EINVAL EINVAL EINVAL EFAULT
G03 seed  | std; t1: read 0; t2: read 1; t3: read 2 | copy [0,3) dontwake; wake [0,2); ?t1; ?t2; ?t3
            -> OK/12288 OK done=1 done=2 blocked
G04 seed  | std; t1: read 0 | wake 0; msg; msg; ?t1 -> OK PF(-)@0x0 nomsg blocked
G05 seed  | std; t1: read 0 | copy 0 dontwake; read 0; ?t1 -> OK/4096 done=1 blocked
# The waiter stands at the address of the message, 0, not where it touched.
G06 later | a = hugetlb 1; z = anon 512; std; t1: read a+0x5007
            | msg; copy 0 from=z dontwake; wake a+0x1000 len=4096; ?t1; wake 0 len=4096; ?t1
            -> PF(-)@0x0 OK/2097152 OK blocked OK done=0
`;
