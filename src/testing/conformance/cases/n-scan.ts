// N: the scan of written pages, and descriptors in other processes than the one whose memory it is.

export const SCAN_CASES = `
N01 later | std wp features=WP_ASYNC | scan -> n=1 [0,8)=0x2
N02 later | std wp features=WP_ASYNC | scan protect check; scan; (fill [2,4) 1); (read 5); scan protect check; scan
            -> n=1 [0,8)=0x2 n=0 n=1 [2,4)=0x2 n=0
N03 later | std wp | scan check; scan protect -> EPERM n=0
N04 later | std wp features=WP_ASYNC | writeprotect a; scan; (madvise dontneed 2); scan -> OK n=0 n=1 [2,3)=0x2
N05 later | std; fork c | c: copy 0; read 0 as=parent -> OK/4096 parent=1
N06 later | std features=EVENT_FORK; fork c; msg; adopt v; kill c
            | copy 0 via=v; zeropage 0 via=v; writeprotect 0 via=v; continue 0 via=v; poison 0 via=v;
            register via=v; unregister via=v; wake 0 via=v
            -> ESRCH/~ ESRCH/~ ESRCH ESRCH/~ ESRCH/~ ENOMEM/~ ENOMEM OK
`;
