/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/scan.c - sluicectl bulkstat: prints all inodes of a mount
 *
 * By the mount's stream of inodes (sluice_ioctl.h) if it has one, else by the ioctl.
 * The stream is cut into parts of whole groups; a thread takes the next part, reads
 * and formats it, and writes when all parts before are written. So the output is in
 * order, and a thread that is ahead has memory for OUT_MAX bytes and then waits.
 *
 * Numbers are formatted here: a million inodes have 20 million of them, and printf(3)
 * would take most of the time.
 *
 * Locks:   scan.lock, over what threads share
 * Threads: as many as --threads says; the main thread waits for them
 */
#include "src/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/sluice_ioctl.h"

/* Inodes of a part, about; of a read. */
#define PART_INODES 32768
#define READ_INODES 4096
#define READ_BYTES (READ_INODES * sizeof(struct sluice_inode))
/* Formatted between two looks at the room. */
#define STEP_INODES 256
/* What an inode takes at most, as a line or as JSON. */
#define TEXT_MAX 768
#define OUT_MIN (1u << 19)
#define OUT_MAX (1u << 23)

struct scan {
	const struct call *c;
	int root;
	unsigned parts;
	pthread_mutex_t lock;
	pthread_cond_t turned;
	unsigned next_part; /* [lock] to be taken */
	unsigned turn;	    /* [lock] the part that may write; changes are broadcast */
	int status;	    /* [lock] exit status so far; EXIT_SOME does not end the scan */
};

/* Text that is not written yet. */
struct out {
	char *text;
	size_t len, room;
};

/* ---- text ---- */

static const char digits[] =
	"00010203040506070809101112131415161718192021222324252627282930313233343536"
	"37383940414243444546474849505152535455565758596061626364656667686970717273"
	"7475767778798081828384858687888990919293949596979899";

static char *put_pair(char *p, unsigned n)
{
	memcpy(p, digits + 2 * n, 2);
	return p + 2;
}

static char *put_number(char *p, uint64_t n)
{
	char text[20], *at = text + sizeof(text);
	size_t len;

	while (n >= 100) {
		at -= 2;
		put_pair(at, (unsigned)(n % 100));
		n /= 100;
	}
	if (n >= 10) {
		at -= 2;
		put_pair(at, (unsigned)n);
	} else {
		*--at = (char)('0' + n);
	}
	len = (size_t)(text + sizeof(text) - at);
	memcpy(p, at, len);
	return p + len;
}

static char *put_signed(char *p, int64_t n)
{
	if (n < 0) {
		*p++ = '-';
		return put_number(p, -(uint64_t)n);
	}
	return put_number(p, (uint64_t)n);
}

static char *put_hex(char *p, uint32_t n)
{
	int bits = 28;

	while (bits && !(n >> bits))
		bits -= 4;
	for (; bits >= 0; bits -= 4)
		*p++ = "0123456789abcdef"[n >> bits & 15];
	return p;
}

/* Six digits. */
static char *put_mode(char *p, uint32_t mode)
{
	for (int bits = 15; bits >= 0; bits -= 3)
		*p++ = (char)('0' + (mode >> bits & 7));
	return p;
}

static char *put_text(char *p, const char *text, size_t len)
{
	memcpy(p, text, len);
	return p + len;
}

#define PUT(p, text) put_text(p, "" text, sizeof(text) - 1)

static char *put_spaced(char *p, uint64_t n)
{
	*p++ = ' ';
	return put_number(p, n);
}

/* Seconds, and nanoseconds as a fraction. */
static char *put_time(char *p, int64_t sec, uint32_t nsec)
{
	*p++ = ' ';
	p = put_signed(p, sec);
	*p++ = '.';
	*p++ = (char)('0' + nsec / 100000000 % 10);
	p = put_pair(p, nsec / 1000000 % 100);
	p = put_pair(p, nsec / 10000 % 100);
	p = put_pair(p, nsec / 100 % 100);
	return put_pair(p, nsec % 100);
}

static char *put_line(char *p, const struct sluice_inode *i)
{
	p = put_number(p, i->ino);
	p = put_spaced(p, i->generation);
	*p++ = ' ';
	p = put_mode(p, i->mode);
	p = put_spaced(p, i->nlink);
	p = put_spaced(p, i->uid);
	p = put_spaced(p, i->gid);
	p = put_spaced(p, i->size);
	p = put_spaced(p, i->blocks);
	p = put_spaced(p, i->projid);
	p = PUT(p, " 0x");
	p = put_hex(p, i->flags);
	p = put_spaced(p, i->rdev_major);
	*p++ = ':';
	p = put_number(p, i->rdev_minor);
	p = put_time(p, i->atime, i->atime_nsec);
	p = put_time(p, i->mtime, i->mtime_nsec);
	p = put_time(p, i->ctime, i->ctime_nsec);
	p = put_time(p, i->crtime, i->crtime_nsec);
	*p++ = '\n';
	return p;
}

static char *put_pair_json(char *p, int64_t first, uint32_t second)
{
	p = put_signed(p, first);
	p = PUT(p, ", ");
	p = put_number(p, second);
	*p++ = ']';
	return p;
}

/* An object on a line of its own. */
static char *put_json(char *p, const struct sluice_inode *i)
{
	p = PUT(p, "{\"ino\": ");
	p = put_number(p, i->ino);
	p = PUT(p, ", \"generation\": ");
	p = put_number(p, i->generation);
	p = PUT(p, ", \"mode\": ");
	p = put_number(p, i->mode);
	p = PUT(p, ", \"nlink\": ");
	p = put_number(p, i->nlink);
	p = PUT(p, ", \"uid\": ");
	p = put_number(p, i->uid);
	p = PUT(p, ", \"gid\": ");
	p = put_number(p, i->gid);
	p = PUT(p, ", \"size\": ");
	p = put_number(p, i->size);
	p = PUT(p, ", \"blocks\": ");
	p = put_number(p, i->blocks);
	p = PUT(p, ", \"projid\": ");
	p = put_number(p, i->projid);
	p = PUT(p, ", \"flags\": ");
	p = put_number(p, i->flags);
	p = PUT(p, ", \"rdev\": [");
	p = put_pair_json(p, i->rdev_major, i->rdev_minor);
	p = PUT(p, ", \"atime\": [");
	p = put_pair_json(p, i->atime, i->atime_nsec);
	p = PUT(p, ", \"mtime\": [");
	p = put_pair_json(p, i->mtime, i->mtime_nsec);
	p = PUT(p, ", \"ctime\": [");
	p = put_pair_json(p, i->ctime, i->ctime_nsec);
	p = PUT(p, ", \"crtime\": [");
	p = put_pair_json(p, i->crtime, i->crtime_nsec);
	return PUT(p, "}\n");
}

static void print_lost(const struct call *c, const struct sluice_inode *i)
{
	if (i->lost > 1)
		fprintf(stderr, "sluicectl: %s: inodes %" PRIu64 "-%" PRIu64 ": %s\n",
			c->mnt, (uint64_t)i->ino,
			(uint64_t)i->ino + i->lost - 1, strerror((int)i->error));
	else
		fprintf(stderr, "sluicectl: %s: inode %" PRIu64 ": %s\n", c->mnt,
			(uint64_t)i->ino, strerror((int)i->error));
}

/* ---- output ---- */

static bool may_go_on(int status)
{
	return !status || status == EXIT_SOME;
}

/* The first status that ends the scan stays. */
static void set_status(struct scan *s, int status)
{
	pthread_mutex_lock(&s->lock);
	if (may_go_on(s->status) && status)
		s->status = status;
	pthread_cond_broadcast(&s->turned);
	pthread_mutex_unlock(&s->lock);
}

/* Waits for the turn of the part. False: the scan has ended with an error. */
static bool wait_turn(struct scan *s, unsigned part)
{
	bool ok;

	pthread_mutex_lock(&s->lock);
	while (s->turn != part && may_go_on(s->status))
		pthread_cond_wait(&s->turned, &s->lock);
	ok = may_go_on(s->status);
	pthread_mutex_unlock(&s->lock);
	return ok;
}

static bool write_out(struct scan *s, struct out *o)
{
	for (size_t done = 0; done < o->len;) {
		ssize_t n = write(STDOUT_FILENO, o->text + done, o->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			fprintf(stderr, "sluicectl: write: %s\n", strerror(errno));
			set_status(s, EXIT_SYSTEM);
			return false;
		}
		done += (size_t)n;
	}
	o->len = 0;
	return true;
}

static bool is_turn(struct scan *s, unsigned part)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = s->turn == part;
	pthread_mutex_unlock(&s->lock);
	return is;
}

/* Room for n inodes more, by writing or by growing. */
static bool make_room(struct scan *s, struct out *o, unsigned part, size_t n)
{
	size_t wanted = o->len + n * TEXT_MAX;
	char *text;

	if (wanted <= o->room)
		return true;
	if (o->len && (o->len >= OUT_MAX || is_turn(s, part))) {
		if (!wait_turn(s, part) || !write_out(s, o))
			return false;
		wanted = n * TEXT_MAX;
		if (wanted <= o->room)
			return true;
	}
	wanted += wanted / 2;
	if (wanted < OUT_MIN)
		wanted = OUT_MIN;
	text = realloc(o->text, wanted);
	if (!text) {
		fprintf(stderr, "sluicectl: %s\n", strerror(ENOMEM));
		set_status(s, EXIT_SYSTEM);
		return false;
	}
	o->text = text;
	o->room = wanted;
	return true;
}

/* At most STEP_INODES. */
static bool put_some(struct scan *s, struct out *o, unsigned part,
		     const struct sluice_inode *inode, size_t n)
{
	char *p;

	if (!make_room(s, o, part, n))
		return false;
	p = o->text + o->len;
	for (size_t i = 0; i < n; i++) {
		if (inode[i].error) {
			print_lost(s->c, &inode[i]);
			set_status(s, EXIT_SOME);
		} else {
			p = s->c->json ? put_json(p, &inode[i]) :
					 put_line(p, &inode[i]);
		}
	}
	o->len = (size_t)(p - o->text);
	return true;
}

static bool put_inodes(struct scan *s, struct out *o, unsigned part,
		       const struct sluice_inode *inode, size_t n)
{
	while (n) {
		size_t step = n < STEP_INODES ? n : STEP_INODES;

		if (!put_some(s, o, part, inode, step))
			return false;
		inode += step;
		n -= step;
	}
	return true;
}

/* ---- by the stream ---- */

static int set_part(const struct scan *s, int fd, unsigned part)
{
	struct sluice_stream st = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(st),
		.first = s->c->first,
		.last = s->c->last,
		.part = part,
		.parts = s->parts,
	};

	return ioctl(fd, SLUICE_IOC_STREAM, &st);
}

static bool one_part(struct scan *s, int fd, unsigned part,
		     struct sluice_inode *inode, struct out *o)
{
	ssize_t n;

	if (set_part(s, fd, part) < 0) {
		set_status(s, ctl_failed(s->c->mnt));
		return false;
	}
	while ((n = read(fd, inode, READ_BYTES)) > 0) {
		if (!put_inodes(s, o, part, inode, (size_t)n / sizeof(*inode)))
			return false;
	}
	if (n < 0) {
		int status = ctl_failed(s->c->mnt);

		if (is_turn(s, part))
			write_out(s, o);
		set_status(s, status);
		return false;
	}
	if (!wait_turn(s, part) || !write_out(s, o))
		return false;
	pthread_mutex_lock(&s->lock);
	s->turn++;
	pthread_cond_broadcast(&s->turned);
	pthread_mutex_unlock(&s->lock);
	return true;
}

/* False: there are no more. */
static bool take_part(struct scan *s, unsigned *part)
{
	bool ok;

	pthread_mutex_lock(&s->lock);
	ok = s->next_part < s->parts && may_go_on(s->status);
	if (ok)
		*part = s->next_part++;
	pthread_mutex_unlock(&s->lock);
	return ok;
}

static int open_stream(int root)
{
	/* Whatever else has this name: it is not waited for. */
	return openat(root, SLUICE_STREAM_NAME,
		      O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

static void *scan_parts(void *arg)
{
	struct scan *s = arg;
	struct sluice_inode *inode = aligned_alloc(4096, READ_BYTES);
	struct out o = { 0 };
	int fd = inode ? open_stream(s->root) : -1;
	unsigned part;

	if (fd < 0)
		set_status(s, ctl_failed(s->c->mnt));
	while (fd >= 0 && take_part(s, &part) && one_part(s, fd, part, inode, &o))
		;
	if (fd >= 0)
		close(fd);
	free(inode);
	free(o.text);
	return NULL;
}

/* Is the stream there, and does it speak as we do? */
static bool has_stream(const struct scan *s)
{
	int fd = open_stream(s->root);
	bool ok;

	if (fd < 0)
		return false;
	ok = set_part(s, fd, 0) == 0;
	close(fd);
	return ok;
}

static void by_stream(struct scan *s)
{
	pthread_t thread[SCAN_THREADS_MAX];
	unsigned n = 0;

	while (n + 1 < s->c->threads &&
	       !pthread_create(&thread[n], NULL, scan_parts, s))
		n++;
	scan_parts(s); /* so that there is one, whatever has failed */
	while (n)
		pthread_join(thread[--n], NULL);
}

static void choose_parts(struct scan *s)
{
	struct statvfs st;

	s->parts = 1;
	if (s->c->threads < 2)
		return;
	s->parts = s->c->threads;
	if (!fstatvfs(s->root, &st) && st.f_files / PART_INODES > s->parts)
		s->parts = (unsigned)(st.f_files / PART_INODES);
}

/* ---- by the ioctl ---- */

static void by_ioctl(struct scan *s)
{
	static struct sluice_bulkstat b = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(b),
		.wanted = SLUICE_BULKSTAT_MAX,
	};
	struct out o = { 0 };
	uint64_t at;

	b.next = s->c->first;
	b.last = s->c->last;
	do {
		at = b.next;
		if (ioctl(s->root, SLUICE_IOC_BULKSTAT, &b) < 0) {
			set_status(s, ctl_failed(s->c->mnt));
			break;
		}
		/* No daemon of ours: the scan would never end. */
		if (b.count > SLUICE_BULKSTAT_MAX || (b.count && b.next <= at)) {
			errno = EPROTO;
			set_status(s, ctl_failed(s->c->mnt));
			break;
		}
	} while (put_inodes(s, &o, 0, b.inode, b.count) && b.count);
	if (o.len)
		write_out(s, &o);
	free(o.text);
}

int ctl_bulkstat(const struct call *c, int fd)
{
	struct scan s = {
		.c = c,
		.root = fd,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.turned = PTHREAD_COND_INITIALIZER,
	};

	choose_parts(&s);
	if (!c->ioctl_only && has_stream(&s))
		by_stream(&s);
	else
		by_ioctl(&s);
	return s.status;
}
