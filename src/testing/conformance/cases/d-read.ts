// D: read and poll on the descriptor.

export const READ_CASES = `
D01 seed  | std | fdread 31; fdread 0; fdread 32 -> EINVAL EINVAL EAGAIN
D02 seed  | std; t1: read 0; t2: read 1; t3: read 2; t4: read 3 | fdread 100; fdread 32; fdread 200
            -> 96 32 EAGAIN
D03 seed  | std; t1: read 0 | fdread 31; poll; fdread 32 -> EINVAL poll=IN 32
D04 seed  | std blocking; t1: fdread 64 | ?t1; (t2: read 0); ?t1 -> blocked 32
D05 seed  | std blocking | poll; (t1: read 0); poll; select -> poll=ERR poll=ERR r=1,w=1
D06 seed  | std blocking; call fcntl u F_SETFL O_NONBLOCK | fdread 32; poll -> EAGAIN poll=0
D07 seed  | std blocking; t1: fdread 32; signal t1 | ?t1; (restart); (t1: fdread 32); (signal t1); ?t1
            -> ret:EINTR blocked
D08 seed  | std; t1: read 0 | fdread 32 to=bad; pending; msg -> EFAULT pending=0,total=1 nomsg
# The buffer begins 32 bytes before the end of what is mapped.
D09 seed  | std; e = anon 1; t1: read 0; t2: read 1 | fdread 64 to=e+4064; pending -> 32 pending=0,total=2
D10 seed  | std; t1: read 0; t2: read 1 | fdreadv 16 48 -> 64
D11 seed  | std; t1: read 0 | epoll; epoll; (fdread 32); epoll -> 1 1 0
D12 seed  | std blocking; t1: fdread 32; t2: fdread 32; t3: read 0 | finished t1 t2 -> 1
`;
