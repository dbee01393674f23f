/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/cases_open.c - open(2): flags, kinds of files, permission
 *
 * Locks: none. See posix.h.
 */
#include "posix.h"

static const struct posix_case cases[] = {
	{ "for reading, writing, both", "f F", "open F r; open F w; open F rw", NULL },
	{ "a descriptor allows what it was opened for", "f F; fill F 10",
	  "open F r; write 0 1 = EBADF; ftruncate 0 0 = EINVAL; open F w; read 1 1 = EBADF", NULL },
	{ "nothing", NULL, "open none r = ENOENT; open none w = ENOENT; open '' r = ENOENT", NULL },
	{ "below a file", "f F", "open F/G r = ENOTDIR; open F/ r = ENOTDIR; open F/. r = ENOTDIR", NULL },
	{ "a directory for writing", "d D", "open D w = EISDIR; open D rw = EISDIR; open D w|trunc = EISDIR", NULL },
	{ "a directory for reading", "d D", "open D r; open D r|dir; read 0 10 = EISDIR; pread 0 10 0 = EISDIR", NULL },
	{ "O_DIRECTORY of a file", "f F", "open F r|dir = ENOTDIR", NULL },
	{ "O_DIRECTORY of a link to a directory", "d D; l L D", "open L r|dir", "L:a" },
	{ "O_DIRECTORY|O_NOFOLLOW of a link", "d D; l L D", "open L r|dir|nofollow = ENOTDIR", NULL },
	{ "O_NOFOLLOW of a link", "f F; l L F", "open L r|nofollow = ELOOP", NULL },
	{ "O_NOFOLLOW of a file", "f F", "open F r|nofollow", NULL },
	{ "O_NOFOLLOW of a link on the way", "d D; f D/F; l L D", "open L/F r|nofollow", "L:a" },
	{ "O_PATH of a link", "l L none", "open L path|nofollow; read 0 1 = EBADF; mode 0 = 0777", NULL },
	{ "O_PATH without a right", "f F 000", "U: open F path; U: open F r = EACCES", NULL },
	{ "O_TRUNC of an empty file", "f F", "open F w|trunc", "F:mc" },
	{ "O_TRUNC of a file", "f F; fill F 100", "open F w|trunc; size F = 0", "F:mcs" },
	{ "O_TRUNC|O_RDONLY cuts, too", "f F; fill F 100", "open F r|trunc; size F = 0", "F:mcs" },
	{ "O_TRUNC without the right to write", "f F 444 U; fill F 100", "U: open F r|trunc = EACCES", NULL },
	{ "O_TRUNC by another takes setuid away", "f F 6777; fill F 100", "U: open F w|trunc; mode F = 0777", "F:mcsp" },
	{ "O_TRUNC by root keeps setuid", "f F; fill F 100; chmod F 6777", "open F w|trunc; mode F = 06777", "F:mcs" },
	{ "O_TRUNC of an empty setuid file", "f F 4777", "U: open F w|trunc; mode F = 0777", "F:mcp" },
	{ "O_TRUNC of a fifo", "p P", "open P rw|trunc", NULL },
	{ "O_TRUNC through a link", "f F; fill F 10; l L F", "open L w|trunc; size F = 0", "F:mcs L:a" },
	{ "O_TRUNC of nothing", NULL, "open none w|trunc = ENOENT", NULL },
	{ "O_TRUNC|O_CREAT of a new file", "d D", "open D/F w|creat|trunc; write 0 5 = 5; size D/F = 5", "D:mc D/F:new" },
	{ "O_APPEND writes at the end", "f F; fill F 10", "open F rw|append; write 0 5 = 5; size F = 15; lseek 0 0 cur = 15; pwrite 0 3 0 = 3; size F = 18; byte 0 0 = 120", "F:amcs" },
	{ "O_APPEND with two descriptors", "f F", "open F w|append|noatime; open F w|append|noatime; write 0 5 = 5; write 1 5 = 5; write 0 5 = 5; size F = 15", "F:mcs" },
	{ "opening changes no time", "f F; d D", "open F r; open F rw; open D r|dir", NULL },
	{ "a loop of links", "l A B; l B A", "open A r = ELOOP; open A w|creat = ELOOP; stat A = ELOOP; chdir A = ELOOP; mkdir A/x = ELOOP; unlink A/x = ELOOP", "A:a B:a" },
	{ "a link to itself", "l A A", "stat A = ELOOP; lstat A; access A = ELOOP; chmod A 644 = ELOOP; truncate A 0 = ELOOP", "A:a" },
	{ "a link to below itself", "l A A/x", "stat A = ELOOP", "A:a" },
	{ "a link to nothing", "l L none", "open L r = ENOENT; stat L = ENOENT; lstat L", "L:a" },
	{ "a socket", "s S", "open S r = ENXIO; open S rw = ENXIO", NULL },
	{ "a fifo without a reader", "p P", "open P w|nonblock = ENXIO; open P r|nonblock", NULL },
	{ "a device that there is not", "b B 666", "open B r|path", NULL },
	{ "the null device", "c C 666", "open C rw; write 0 10 = 10; read 0 10 = 0; size C = 0", NULL },
	{ "O_CREAT of a fifo", "p P", "open P r|creat|nonblock", NULL },
	{ "without the right to read", "f F 200 U", "U: open F r = EACCES; U: open F rw = EACCES; U: open F w", NULL },
	{ "without the right to write", "f F 400 U", "U: open F w = EACCES; U: open F rw = EACCES; U: open F r", NULL },
	{ "the owner's rights count for the owner", "f F 077 U", "U: open F r = EACCES; V: open F rw; W: open F rw", NULL },
	{ "the group's rights count for the group", "f F 606 0:3001", "U: open F r = EACCES; W: open F r = EACCES; V: open F rw", NULL },
	{ "by a further group", "f F 060 0:4000", "W: open F rw; U: open F r = EACCES", NULL },
	{ "root may all", "f F 000 U; d D 000 U; f D/F 000 U", "open F rw; open D r|dir; open D/F rw", NULL },
	{ "root may not run what nobody may", "f F 644", "access F x = EACCES; exec F = EACCES", NULL },
	{ "search of a directory on the way", "d D 600 U; f D/F 666", "U: open D/F r = EACCES; U: open D/none r = EACCES; U: open D r|dir", NULL },
	{ "a directory without the right to read", "d D 311 U; f D/F 644", "U: open D r = EACCES; U: open D/F r; U: list D = EACCES", NULL },
	{ "O_NOATIME of a file of others", "f F 666; fill F 10", "U: open F r|noatime = EPERM", NULL },
	{ "O_NOATIME of one's own", "f F 666 U; fill F 10; old", "U: open F r|noatime; read 0 10 = 10", NULL },
	{ "O_NOATIME without the right to read", "f F 600", "U: open F r|noatime = EACCES", NULL },
	{ "sticky: O_CREAT of others' files (fs.protected_regular)", "d D 1777; f D/F 666 V; old", "V: open D/F w|creat", NULL },
	{ "what is run is not written", "f F 755; old", "open F w; exec F = ETXTBSY", NULL },
	{ "a file without content is run", "f F 755", "exec F = ENOEXEC", "F:a" },
	{ "a directory is not run", "d D", "exec D = EACCES", NULL },
	{ "O_DIRECT", "f F", "open F rw|direct", NULL },
	{ "O_SYNC", "f F", "open F w|sync; write 0 100 = 100", "F:mcs" },
	{ "a directory with O_CREAT", "d D", "open D r|creat = EISDIR; open D r|creat|excl = EEXIST; open D w|creat|trunc = EISDIR", NULL },
	{ "dot with O_CREAT", "d D", "open D/. r|creat = EISDIR; open D/.. w|creat = EISDIR", NULL },
	{ "a file that is removed is opened no more", "f F; open F r", "unlink F; open F r = ENOENT", ".:mc F:cn" },
};

const struct posix_table open_table = {
	"open", cases, sizeof(cases) / sizeof(cases[0])
};
