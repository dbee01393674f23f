/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/cases_misc.c - lengths of names, flags, extended attributes, locks, listings
 *
 * Locks: none. See posix.h.
 */
#include "posix.h"

static const struct posix_case name[] = {
	{ "a file of 255", "d D", "creat D/{255}; stat D/{255}; list D = 3; unlink D/{255}", "D:amc" },
	{ "256 are too many", "d D; f D/F", "creat D/{256} = ENAMETOOLONG; mkdir D/{256} = ENAMETOOLONG; symlink x D/{256} = ENAMETOOLONG; mknod D/{256} p = ENAMETOOLONG; link D/F D/{256} = ENAMETOOLONG; unlink D/{256} = ENAMETOOLONG; rmdir D/{256} = ENAMETOOLONG; stat D/{256} = ENAMETOOLONG; open D/{256} r = ENAMETOOLONG; chmod D/{256} 0 = ENAMETOOLONG; chown D/{256} U = ENAMETOOLONG; truncate D/{256} 0 = ENAMETOOLONG; readlink D/{256} = ENAMETOOLONG", NULL },
	{ "256 are too many, exclusively", "d D", "open D/{256} w|creat|excl = ENAMETOOLONG; chdir D/{256} = ENAMETOOLONG; access D/{256} = ENAMETOOLONG; utimens D/{256} = ENAMETOOLONG", NULL },
	{ "directories and links of 255", "d D", "mkdir D/{255}; creat D/{255}/{255}; symlink {255} D/{254}; rename D/{255}/{255} D/{253}; rmdir D/{255}; readlink D/{254} = 255", "D:mc" },
	{ "a path of PATH_MAX less one", "f F", "stat {/2047}F; chmod {/2047}F 600; open {/2047}F r; access {/2047}F", "F:cp" },
	{ "a path of PATH_MAX", "f FF", "stat {/2047}FF = ENAMETOOLONG; creat {/2047}FF = ENAMETOOLONG; unlink {/2047}FF = ENAMETOOLONG; rename FF {/2047}GG = ENAMETOOLONG; mkdir {/2047}GG = ENAMETOOLONG; symlink x {/2047}GG = ENAMETOOLONG; link FF {/2047}GG = ENAMETOOLONG", NULL },
	{ "too long comes before not allowed", "d D 755", "U: creat D/{256} = ENAMETOOLONG; U: mkdir D/{256} = ENAMETOOLONG; U: unlink D/{256} = ENAMETOOLONG", NULL },
	{ "no search comes before too long", "d D 600 U", "U: stat D/{256} = EACCES; U: mkdir D/{256} = EACCES", NULL },
	{ "too long below a file", "f F", "stat F/{256} = ENOTDIR; mkdir F/{256} = ENOTDIR", NULL },
	{ "too long below nothing", NULL, "stat none/{256} = ENOENT; stat {256}/none = ENAMETOOLONG", NULL },
	{ "case counts", "f a", "stat A = ENOENT; creat A; same a A = 0", ".:mc A:new" },
	{ "forty links one after the other", "f F; l 1 F; l 2 1; l 3 2; l 4 3; l 5 4; l 6 5", "stat 6", "1:a 2:a 3:a 4:a 5:a 6:a" },
	{ "dots are names of directories", "d D; d D/S", "same D D/. = 1; same D D/S/.. = 1; same . D/.. = 1", NULL },
};

const struct posix_table name_table = { "name", name, sizeof(name) / sizeof(name[0]) };

static const struct posix_case flags[] = {
	{ "immutable: content", "f F; fill F 10; old; immutable F", "open F w = EPERM; open F rw = EPERM; open F w|append = EPERM; open F w|trunc = EPERM; open F r|trunc = EPERM; truncate F 0 = EPERM; open F r", NULL },
	{ "immutable: attributes", "f F; old; immutable F", "chmod F 600 = EPERM; chown F U = EPERM; utimens F 5 5 = EPERM; setxattr F user.x 1 = EPERM", NULL },
	{ "immutable: utimes to now", "f F; old; immutable F", "utimens F = EPERM", NULL },
	{ "immutable: names", "d D; f D/F; old; immutable D/F", "unlink D/F = EPERM; rename D/F D/G = EPERM; link D/F D/G = EPERM", NULL },
	{ "immutable: over it", "d D; f D/F; f D/G; old; immutable D/G", "rename D/F D/G = EPERM; rename D/F D/G exchange = EPERM", NULL },
	{ "immutable: who has it open writes no more", "f F; fill F 10; open F rw; old; immutable F", "write 0 1 = EPERM; ftruncate 0 0 = EPERM; fallocate 0 0 0 100 = EPERM; fallocate 0 punch|keep 0 1 = EPERM", NULL },
	{ "immutable: owner and user", "f F 666 U; old; immutable F", "U: chmod F 600 = EPERM; U: utimens F = EPERM; U: open F w = EPERM; V: open F w = EPERM", NULL },
	{ "immutable: comes before permission", "f F 600; old; immutable F", "U: open F w = EPERM; U: open F r = EACCES; U: truncate F 0 = EPERM", NULL },
	{ "immutable: access", "f F 666; old; immutable F", "access F w = EPERM; access F r; U: access F w = EPERM", NULL },
	{ "immutable: reading", "f F; fill F 10; old; immutable F", "open F r; read 0 10 = 10", "F:a" },
	{ "immutable: a directory", "d D; f D/F; d D/S; old; immutable D", "creat D/G = EPERM; mkdir D/G = EPERM; symlink x D/G = EPERM; mknod D/G p = EPERM; link D/F D/G = EPERM; unlink D/F = EPERM; rmdir D/S = EPERM; rename D/F D/G = EPERM; open D rw|tmpfile = EPERM; list D = 4", "D:a" },
	{ "immutable: a directory by a user", "d D 755; f D/F; old; immutable D", "U: creat D/G = EPERM; U: unlink D/F = EPERM; U: mkdir D/G = EPERM", NULL },
	{ "immutable: what is there comes first", "d D; f D/F; old; immutable D", "mkdir D/F = EEXIST; symlink x D/F = EEXIST; open D/F r|creat|excl = EEXIST; unlink D/none = ENOENT; rmdir D/none = ENOENT", NULL },
	{ "immutable: what is in it changes", "d D; f D/F; old; immutable D", "open D/F w; write 0 1 = 1; chmod D/F 600", "D/F:mcsp" },
	{ "immutable: rename out and in", "d D; d E; f D/F; f E/G; old; immutable D", "rename D/F E/F = EPERM; rename E/G D/G = EPERM; rename D/F E/G = EPERM; rename E/G D/F = EPERM", NULL },
	{ "immutable: an empty directory", "d D; d D/S; old; immutable D/S", "rmdir D/S = EPERM; rename D/S D/T = EPERM", NULL },
	{ "immutable: kind comes after", "d D; d D/S; f D/F; old; immutable D/S; immutable D/F", "unlink D/S = EPERM; rmdir D/F = EPERM", NULL },
	{ "immutable: a link to it over a name", "d D; f D/F; f D/G; old; immutable D/F", "link D/F D/G = EEXIST", NULL },
	{ "immutable: not any more", "f F; old; immutable F; tick", "mutable F; chmod F 600", "F:cp" },
	{ "immutable: setting it is a change", "f F", "immutable F", "F:c" },
	{ "immutable: what was written before lasts", "f F; open F rw", "write 0 10 = 10; immutable F; fsync 0; pread 0 20 0 = 10; close 0; size F = 10", "F:amcs" },
	{ "append: what was written before lasts", "f F; open F rw|noatime", "write 0 10 = 10; append F; fsync 0; pwrite 0 1 0 = 1; fsync 0; close 0; size F = 10", "F:mcs" },
	{ "immutable: by a user", "f F 666 U", "U: immutable F = EPERM; U: append F = EPERM; V: immutable F = EPERM", NULL },
	{ "append: content", "f F; fill F 10; old; append F", "open F w = EPERM; open F rw = EPERM; open F w|append|trunc = EPERM; open F r|trunc = EPERM; truncate F 0 = EPERM; truncate F 20 = EPERM; open F r", NULL },
	{ "append: writes at the end", "f F; fill F 10; old; append F", "open F w|append|noatime; write 0 5 = 5; size F = 15", "F:mcs" },
	{ "append: sizes of an open file", "f F; fill F 10; old; append F", "open F w|append; ftruncate 0 0 = EPERM; ftruncate 0 20 = EPERM; fallocate 0 punch|keep 0 1 = EPERM", NULL },
	{ "append: allocating", "f F; fill F 10; old; append F", "open F w|append; fallocate 0 0 0 100; fallocate 0 keep 0 200", "F:mcs" },
	{ "append: attributes", "f F; old; append F", "chmod F 600 = EPERM; chown F U = EPERM; utimens F 5 5 = EPERM; setxattr F user.x 1 = EPERM", NULL },
	{ "append: utimes to now", "f F; old; append F", "utimens F", "F:amc" },
	{ "append: names", "d D; f D/F; f D/G; old; append D/F", "unlink D/F = EPERM; rename D/F D/H = EPERM; link D/F D/H = EPERM; rename D/G D/F = EPERM", NULL },
	{ "append: a directory gets names", "d D; f D/F; d D/S; f G; old; append D", "creat D/G; mkdir D/T; rename G D/H; link D/F D/I", ".:mc D:mcn D/F:cn G:c" },
	{ "append: a directory loses none", "d D; f D/F; d D/S; f G; old; append D", "unlink D/F = EPERM; rmdir D/S = EPERM; rename D/F D/G = EPERM; rename D/F H = EPERM; rename G D/F = EPERM", NULL },
	{ "append: access", "f F 666; old; append F", "access F w; access F r", NULL },
	{ "append: setting it while it is open", "f F; fill F 10; open F rw|noatime; old; append F", "pwrite 0 1 0 = 1", "F:mc" },
	{ "noatime: reading", "f F; fill F 10; old; noatime F", "open F r; read 0 10 = 10", NULL },
	{ "noatime: a directory", "d D; f D/F; old; noatime D", "list D = 3", NULL },
	{ "noatime: is inherited", "d D; noatime D", "creat D/F; symlink x D/L; mkdir D/S; readlink D/L = 1", "D:mcn D/F:new D/S:new" },
	{ "append: is inherited", "d D; append D", "creat D/F; open D/F w = 0", "D:mc" },
};

const struct posix_table flags_table = { "flags", flags, sizeof(flags) / sizeof(flags[0]) };

static const struct posix_case xattr[] = {
	{ "setting", "f F", "setxattr F user.x 10; getxattr F user.x 100 = 10; listxattr F 100 = 7", "F:c" },
	{ "setting anew", "f F; setxattr F user.x 10; old", "setxattr F user.x 20; getxattr F user.x 0 = 20", "F:c" },
	{ "setting what it is", "f F; setxattr F user.x 10; old", "setxattr F user.x 10", NULL },
	{ "removing", "f F; setxattr F user.x 10; old", "removexattr F user.x; getxattr F user.x 10 = ENODATA", "F:c" },
	{ "removing what is not there", "f F", "removexattr F user.x = ENODATA", NULL },
	{ "reading", "f F; setxattr F user.x 10; old", "getxattr F user.x 9 = ERANGE; getxattr F user.x 10 = 10; getxattr F user.x 0 = 10; getxattr F user.y 10 = ENODATA; listxattr F 3 = ERANGE; listxattr F 0 = 7", NULL },
	{ "flags", "f F; setxattr F user.x 10; old", "setxattr F user.x 10 create = EEXIST; setxattr F user.y 10 replace = ENODATA", NULL },
	{ "flags that hold", "f F; setxattr F user.x 10; old", "setxattr F user.x 5 replace; setxattr F user.y 10 create", "F:c" },
	{ "an empty value", "f F", "setxattr F user.x 0; getxattr F user.x 10 = 0", "F:c" },
	{ "a directory", "d D", "setxattr D user.x 10", "D:c" },
	{ "a sticky directory of others", "d D 1777", "U: setxattr D user.x 10 = EPERM", NULL },
	{ "a link", "l L none", "setxattr L user.x 1 = EPERM; getxattr L user.x 1 = ENODATA; listxattr L 0 = 0", NULL },
	{ "a fifo", "p P", "setxattr P user.x 1 = EPERM", NULL },
	{ "trusted of a link", "l L none", "setxattr L trusted.x 1; getxattr L trusted.x 10 = 1", "L:c" },
	{ "trusted by a user", "f F 666 U; setxattr F trusted.x 1; old", "U: setxattr F trusted.y 1 = EPERM; U: getxattr F trusted.x 10 = ENODATA; U: listxattr F 0 = 0; U: removexattr F trusted.x = EPERM", NULL },
	{ "user without the right to write", "f F 444", "U: setxattr F user.x 1 = EACCES; U: getxattr F user.x 1 = ENODATA", NULL },
	{ "user without the right to read", "f F 222; setxattr F user.x 1; old", "U: getxattr F user.x 1 = EACCES; U: setxattr F user.y 1", "F:c" },
	{ "names", "f F", "setxattr F user. 1 = EINVAL; setxattr F user 1 = EOPNOTSUPP; setxattr F none.x 1 = EOPNOTSUPP; setxattr F '' 1 = ERANGE; setxattr F user.{250} 1; setxattr F user.{251} 1 = ERANGE; getxattr F user.{251} 1 = ERANGE", "F:c" },
	{ "values that are too large", "f F", "setxattr F user.x 64K+1 = E2BIG; setxattr F user.x 64K = ENOSPC", NULL },
	{ "of nothing", NULL, "setxattr none user.x 1 = ENOENT; getxattr none user.x 1 = ENOENT; listxattr none 0 = ENOENT", NULL },
	{ "security by a user", "f F 666 U", "U: setxattr F security.x 1 = EPERM; setxattr F security.x 1", "F:c" },
};

const struct posix_table xattr_table = { "xattr", xattr, sizeof(xattr) / sizeof(xattr[0]) };

static const struct posix_case locks[] = {
	{ "flock: two share", "f F; open F r; open F r", "flock 0 sh; flock 1 sh; flock 0 ex = EAGAIN", NULL },
	{ "flock: one alone", "f F; open F r; open F r", "flock 0 ex; flock 1 sh = EAGAIN; flock 1 ex = EAGAIN; flock 0 un; flock 1 ex", NULL },
	{ "flock: goes with the descriptor", "f F; open F r; open F r", "flock 0 ex; close 0; flock 1 ex", NULL },
	{ "flock: of a directory", "d D; open D r; open D r", "flock 0 ex; flock 1 ex = EAGAIN", NULL },
	{ "flock: through two names", "f F; link F G; open F r; open G r; old", "flock 0 ex; flock 1 ex = EAGAIN", NULL },
	{ "ofd: ranges", "f F; open F rw; open F rw", "ofd 0 w 0 10; ofd 1 w 10 10; ofd 1 r 9 1 = EAGAIN; ofd 0 un 0 10; ofd 1 r 9 1", NULL },
	{ "ofd: two share", "f F; open F rw; open F rw", "ofd 0 r 0 0; ofd 1 r 0 0; ofd 1 w 5 1 = EAGAIN", NULL },
	{ "ofd: goes with the descriptor", "f F; open F rw; open F rw", "ofd 0 w 0 0; close 0; ofd 1 w 0 0", NULL },
	{ "lock: another process", "f F; open F rw", "lock 0 w 0 10; otherlock 0 w 5 1 = EAGAIN; otherlock 0 w 10 1; getlock 0 w 5 1 = 1; getlock 0 r 10 0 = 0; lock 0 un 0 10; otherlock 0 w 0 0", NULL },
	{ "lock: goes with any descriptor of the file", "f F; open F rw; open F r", "lock 0 w 0 0; close 1; otherlock 0 w 0 0", NULL },
	{ "lock: reading shares", "f F; open F rw", "lock 0 r 0 0; otherlock 0 r 0 0; otherlock 0 w 0 0 = EAGAIN", NULL },
	{ "lock: needs the descriptor's right", "f F; open F r; open F w", "lock 0 w 0 0 = EBADF; lock 1 r 0 0 = EBADF", NULL },
	{ "lock: a piece out of the middle", "f F; open F rw", "lock 0 w 0 100; lock 0 un 40 20; otherlock 0 w 45 5; otherlock 0 w 30 5 = EAGAIN; otherlock 0 w 70 5 = EAGAIN", NULL },
	{ "lock: of a file that is removed", "f F; open F rw", "unlink F; lock 0 w 0 0; otherlock 0 w 0 0 = EAGAIN", ".:mc F:cn" },
};

const struct posix_table lock_table = { "lock", locks, sizeof(locks) / sizeof(locks[0]) };

static const struct posix_case dirs[] = {
	{ "an empty one", "d D", "list D = 2", "D:a" },
	{ "all are listed", "d D; many D 300; old", "list D = 302", "D:a" },
	{ "kinds and numbers", "d D; f D/F; d D/S; l D/L x; p D/P; s D/U; c D/C; old", "dtypes D = 0", "D:a" },
	{ "removal during reading", "d D; many D 300; old", "consume D = 0; list D = 2; rmdir D", ".:mcn D:amcsn" },
	{ "back to where one was", "d D; many D 300; old", "seekdir D = 0", "D:a" },
	{ "from the start", "d D; f D/F; open D r|dir; old", "fdlist 0 = 3; fdlist 0 = 0; rewind 0 = 0; fdlist 0 = 3; creat D/G; rewind 0; fdlist 0 = 4", "D:amc" },
	{ "one that is gone", "d D; f D/F; open D r|dir; old", "unlink D/F; rmdir D; fdlist 0 = ENOENT", ".:mcn D:mcsn D/F:cn" },
	{ "of a file", "f F", "list F = ENOTDIR; list none = ENOENT", NULL },
	{ "without the right", "d D 311", "U: list D = EACCES", NULL },
	{ "without search", "d D 744; f D/F", "U: list D = 3; U: stat D/F = EACCES", "D:a" },
	{ "many names grow it", "d D; old", "many D 500; list D = 502", "D:amcs" },
	{ "what grew does not shrink", "d D; many D 500; old", "consume D = 0; nlink D = 2", "D:amc" },
	{ "dot and two dots after a rename", "d D; d E; d D/S; open D/S r|dir; old", "rename D/S E/S; dtypes E/S = 0; same E/S/.. E = 1", "D:mcn E:mcn D/S:ac" },
};

const struct posix_table dir_table = { "dir", dirs, sizeof(dirs) / sizeof(dirs[0]) };
