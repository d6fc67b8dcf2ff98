// C: faults and their messages.

export const FAULT_CASES = `
C01 seed  | std | read 1; msg; restzero -> blocked PF(-)@0x1000 restzero=1
C02 seed  | std | write 1 1; msg -> blocked PF(W)@0x1000
C03 later | std; t1: read 1+0x123 | msg -> PF(-)@0x1000
C04 later | std features=EXACT_ADDRESS; t1: read 1+0xfff | msg -> PF(-)@0x1fff
C05 later | std features=THREAD_ID; t1: read 0 | msg; match t1 -> PF(-)@0x0+tid match=1
# The seed reported the exact address.
C06 seed  | std; t1: read 0+4092 size=8 | msg; zeropage 0; msg; zeropage 1; ?t1
            -> PF(-)@0x0 OK/4096 PF(-)@0x1000 OK/4096 done=0
            @4.3 PF(-)@0xffc OK/4096 PF(-)@0x1000 OK/4096 done=0
C07 seed  | std; t1: add 0 1 | msg; copy 0; ?t1; msg -> PF(W)@0x0 OK/4096 done=1 nomsg
C08 seed  | a = anon 8 prot=rwx; k = source 1 byte=0xc3; std; t1: exec 0 | msg; copy 0 from=k; ?t1
            -> PF(-)@0x0 OK/4096 done
C09 seed  | std; t1: read 0; t2: read 0; t3: read 0 | msg; msg; msg; msg; copy 0; ?t1; ?t2; ?t3
            -> PF(-)@0x0 PF(-)@0x0 PF(-)@0x0 nomsg OK/4096 done=1 done=1 done=1
C10 seed  | std; t1: read 3; t2: read 1; t3: read 2; t4: read 0 | msg; msg; msg; msg
            -> PF(-)@0x3000 PF(-)@0x1000 PF(-)@0x2000 PF(-)@0x0
C11 seed  | std | poll; (t1: read 0); poll; msg; poll; ?t1 -> poll=0 poll=IN PF(-)@0x0 poll=0 blocked
C12 seed  | std; t1: read 0 | poll; copy 0; ?t1; poll; msg -> poll=IN OK/4096 done=1 poll=0 nomsg
C13 seed  | std; t1: read 0 | msg; wake 0; msg; ?t1 -> PF(-)@0x0 OK PF(-)@0x0 blocked
C14 seed  | std; t1: read 0 | pending; msg; pending; copy 0; ?t1; pending
            -> pending=1,total=1 PF(-)@0x0 pending=0,total=1 OK/4096 done=1 pending=0,total=0
C15 seed  | std; t1: write(2) 0 | msg; ?t1; copy 0; ?t1 -> PF(-)@0x0 blocked OK/4096 done=16
C16 seed  | std; t1: read(2) 0 | msg; copy 0; ?t1 -> PF(W)@0x0 OK/4096 done=16
C17 seed  | std; t1: write(2) 0+100 len=8192 | msg; (copy 0); msg; (copy 1); msg; (copy 2); ?t1
            -> PF(-)@0x0 PF(-)@0x1000 PF(-)@0x2000 done=8192
            @4.3 PF(-)@0x64 PF(-)@0x1000 PF(-)@0x2000 done=8192
C18 later | std user | write(2) 0; read(2) 1; msg; read 2; msg
            -> ret:EFAULT ret:EFAULT nomsg blocked PF(-)@0x2000
C19 later | std features=SIGBUS | read 1+0x123 addr; msg -> SIGBUS(2) addr=0x1123 nomsg
C20 later | std features=SIGBUS | write(2) 0; read(2) 0; msg -> ret:EFAULT ret:EFAULT nomsg
C21 later | std features=SIGBUS | copy 0; read 0 -> OK/4096 done=1
C22 seed  | std; t1: process_vm_readv 0 | msg; copy 0; ?t1 -> PF(-)@0x0 OK/4096 done=8
C23 seed  | std | mincore 0; madvise willneed 0 as=willneed; msg; res 0 -> mincore=0 willneed=0 nomsg res=0
C24 later | std; t1: madvise populate_read 0 | msg; (copy 0); ?t1;
            (t2: madvise populate_write 1); msg; (copy 1); ?t2; (t3: mlock 2); msg; (copy 2); ?t3
            -> PF(-)@0x0 done=0 PF(W)@0x1000 done=0 PF(W)@0x2000 done=0
C25 seed  | a = anon 8 prot=none; std | read 0; msg -> SIGSEGV(2) nomsg
C26 seed  | a = anon 8 prot=r; std | write 0 1; msg; read 0; msg -> SIGSEGV(2) nomsg blocked PF(-)@0x0
C27 seed  | std; t1: read 0; (msg); t2: write 1 3 | (close); ?t1; ?t2; peek 1 as=v -> done=0 done v=3
C28 seed  | std; dup v; t1: read 0 | (close); ?t1; zeropage 0 via=v; ?t1 -> blocked OK/4096 done=0
C29 seed  | std; t1: read 0 | msg; (munmap 0); ?t1; wake 0; ?t1 -> PF(-)@0x0 blocked OK SIGSEGV(1)
C30 seed  | std | copy 0; (madvise dontneed 0); read 0; msg -> OK/4096 blocked PF(-)@0x0
C31 seed  | std; fork c | c: read 1 as=child; msg; reg -> child=0 nomsg reg=M
C32 later | a = thp 512; std; t1: write 5+7 1 | msg; zeropage 5; ?t1; res [4,6)
            -> PF(W)@0x5000 OK/4096 done res=01
C33 later | a = hugetlb 1; std; b = hugetlb 1; uffd v features=EXACT_ADDRESS; register b via=v;
            t1: read a+0x5007; t2: read b+0x5007 | msg; msg via=v -> PF(-)@0x0 PF(-)@0x5007
C34 later | a = shmem 8; x = alias a; fill x.0 4; std | read 0; read 1; msg -> done=4 blocked PF(-)@0x1000
C35 seed  | std; d = gap 8; mremap a to=d | reg d; read d.1 -> reg=none done=0
C36 seed  | std; t1: read 0 | msg; (signal t1); handled t1; msg; copy 0; ?t1
            -> PF(-)@0x0 handler=1 PF(-)@0x0 OK/4096 done=1
C37 seed  | fork c; c: std; c.t1: read 0; fork d; d: std; d.t1: write(2) 0 | kill c; kill d -> killed killed
C38 later | a = shmem 8 size=4; std | read 5; msg -> SIGBUS(2) nomsg
`;
