import ctypes, errno, os

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)
x86 = os.uname().machine == "x86_64"
CALLS = {
    "ptrace": (101, 117, 0, 0, 0, 0),
    "ptrace attach": (101, 117, 16, 1, 0, 0),
    "process_vm_readv": (310, 270, 1, buffer, 1, buffer, 1, 0),
    "process_vm_writev": (311, 271, 1, buffer, 1, buffer, 1, 0),
    "kcmp": (312, 272, 1, 1, 0, 0, 0),
    "pidfd_getfd": (438, 438, 0, 0, 0),
    "process_madvise": (440, 440, 0, buffer, 1, 0, 0),
    "add_key": (248, 217, b"user", b"name", b"x", 1, -3),
    "request_key": (249, 218, b"user", b"name", None, -3),
    "keyctl": (250, 219, 0, -3, 0),
    "bpf": (321, 280, 0, buffer, 64),
    "perf_event_open": (298, 241, buffer, 0, -1, -1, 0),
    "userfaultfd": (323, 282, 1),
    "io_uring_setup": (425, 425, 8, buffer),
    "io_uring_enter": (426, 426, 0, 0, 0, 0, None, 0),
    "io_uring_register": (427, 427, 0, 0, None, 0),
    "mount": (165, 40, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount2": (166, 39, b"/tmp", 2),
    "pivot_root": (155, 41, b"/tmp", b"/tmp"),
    "chroot": (161, 51, b"/tmp"),
    "open_tree": (428, 428, -100, b"/", 1),
    "move_mount": (429, 429, -100, b"/", -100, b"/tmp", 0),
    "fsopen": (430, 430, b"tmpfs", 0),
    "fsmount": (432, 432, 0, 0, 0),
    "mount_setattr": (442, 442, -100, b"/", 0, buffer, 32),
    "unshare": (272, 97, 0x10000000),
    "setns": (308, 268, 0, 0),
    "clone of a user namespace": (56, 220, 0x10000011, 0, 0, 0, 0),
    "clone of a network namespace": (56, 220, 0x40000011, 0, 0, 0, 0),
    "clone3": (435, 435, buffer, 88),
    "swapon": (167, 224, b"/tmp/x", 0),
    "reboot": (169, 142, 0xFEE1DEAD, 672274793, 0, 0),
    "sethostname": (170, 161, b"x", 1),
    "init_module": (175, 105, buffer, 1, b""),
    "finit_module": (313, 273, 0, b"", 0),
    "delete_module": (176, 106, b"x", 0),
    "kexec_load": (246, 104, 0, 0, None, 0),
    "quotactl": (179, 60, 0, None, 0, None),
    "acct": (163, 89, None),
    "settimeofday": (164, 170, buffer, None),
    "clock_settime": (227, 112, 0, buffer),
    "clock_adjtime": (305, 266, 0, buffer),
    "adjtimex": (159, 171, buffer),
    "iopl": (172, None, 3),
    "ioperm": (173, None, 0, 8, 1),
    "syslog": (103, 116, 2, buffer, 4096),
    "open_by_handle_at": (304, 265, -100, buffer, 0),
    "name_to_handle_at": (303, 264, -100, b"/", buffer, buffer, 0),
    "fanotify_init": (300, 262, 0, 0),
    "modify_ldt": (154, None, 0, buffer, 64),
    "vhangup": (153, 58),
    "memfd_secret": (447, 447, 0),
    "shmget": (29, 194, 1, 4096, 0o1666),
    "msgget": (68, 186, 1, 0o1666),
    "semget": (64, 190, 1, 1, 0o1666),
    "mq_open": (240, 180, b"queue", 0o102, 0o666, None),
    "sched_setscheduler of the keeper": (144, 119, 1, 1, buffer),
    "sched_setaffinity of the keeper": (203, 122, 1, 8, buffer),
    "prlimit64 of the keeper": (302, 261, 1, 7, buffer, None),
    "setpriority of the keeper": (141, 140, 0, 1, 19),
    "setpriority of a user": (141, 140, 2, 0, 19),
    "setpriority of a group": (141, 140, 1, 0, 19),
    "move_pages": (279, 239, 1, 0, None, None, None, 0),
    "personality": (135, 92, 0x0400000),
    "seccomp": (317, 277, 1, 0, buffer),
    "a call of the future": (600, 600),
}
for name, (number_x86, number_arm, *arguments) in CALLS.items():
    number = number_x86 if x86 else number_arm
    if number is None:
        continue
    result = libc.syscall(number, *arguments)
    if result >= 0:
        print("escaped:", name, result)
    elif ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        print("escaped: reached", name, os.strerror(ctypes.get_errno()))
print("held")
