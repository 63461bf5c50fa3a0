"""Our own seccomp profile: what programs need, and nothing that changes the machine below the container.

It follows the policy of Docker's: no mounts, no namespaces and no foreign modules without the
capability for it, no keyrings, no BPF, no io_uring; clone3, whose flags a filter cannot see, is
answered ENOSYS, so that the C library uses clone. Sockets are allowed by family: AF_ALG and
AF_VSOCK, which reach the kernel's crypto and the hypervisor, are not among them. The family is compared
in its low 32 bits, which is all that the kernel looks at.

socketcall of i386 hides the family behind a pointer. It is allowed all the same, as Docker does again after having
refused it: the C library of 32-bit programs has no other way to the network, and they are found in 64-bit images
too. A kernel older than May 2026 whose AF_ALG is not patched (CVE-2026-31431) needs a profile of its own in which
socketcall is answered SCMP_ACT_ERRNO with errnoRet 38 (to leave it out is not enough: what is allowed by name is
allowed through it), or the module af_alg kept away.

Source: github.com/moby/profiles (policy); CVE-2026-31431; the man page of each call.
"""

from __future__ import annotations

from typing import Any, Final

_FILES: Final = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 arm_fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64
fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listmount listxattr listxattrat
llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat
oldfstat oldlstat oldstat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
readdir readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr
setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range sync_file_range2
arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
vmsplice write writev
"""
_MEMORY: Final = """
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise
process_mrelease remap_file_pages
"""
_PROCESSES: Final = """
alarm arch_prctl breakpoint cacheflush capget capset execve execveat exit exit_group fork get_robust_list
get_thread_area get_tls getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid
getuid getuid32 ioprio_get ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self
lsm_get_self_attr lsm_list_modules lsm_set_self_attr modify_ldt nice oldolduname olduname pidfd_open
pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace rseq
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32
setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo times ugetrlimit uname uretprobe uprobe vfork
wait4 waitid waitpid
"""
_SIGNALS_AND_TIME: Final = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 getitimer gettimeofday kill nanosleep pause restart_syscall rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
setitimer sgetmask sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend ssetmask
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 tkill
"""
_WAITING: Final = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select
"""
_TALKING: Final = """
accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd recv
recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto
setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
"""
#: Answered as if the kernel were older: programs have another way.
_NOT_HERE: Final = "clone3 io_uring_enter io_uring_register io_uring_setup"
_BY_CAPABILITY: Final = {
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
    """,
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}
_UNIX, _INET, _INET6, _NETLINK, _PACKET = 1, 2, 10, 16, 17
_INT: Final = 0xFFFFFFFF  # an argument of which the kernel takes the low half
#: The flags of clone that make namespaces: cgroup, UTS, IPC, user, PID, network, mount.
_NEW_NAMESPACES: Final = 0x7E020000
#: Linux, 32-bit uname, both, and the question which one it is.
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def _allow(names: str, **conditions: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **conditions}


def _when(index: int, operator: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"args": [{"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}]}


PROFILE: Final[dict[str, Any]] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        *(_allow(names) for names in (_FILES, _MEMORY, _PROCESSES, _SIGNALS_AND_TIME, _WAITING, _TALKING)),
        *(_allow("socket", **_when(0, "MASKED_EQ", _INT, family)) for family in (_UNIX, _INET, _INET6, _NETLINK)),
        _allow("socket", **_when(0, "MASKED_EQ", _INT, _PACKET)),
        *(_allow("personality", **_when(0, "EQ", value)) for value in _PERSONALITIES),
        _allow("clone", **_when(0, "MASKED_EQ", _NEW_NAMESPACES), excludes={"caps": ["CAP_SYS_ADMIN"]}),
        *(_allow(names, includes={"caps": [capability]}) for capability, names in _BY_CAPABILITY.items()),
        {
            "names": _NOT_HERE.split(),
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 38,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
    ],
}
