/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/src/test_loop.c - the request loop, over a socket of packets
 *
 * A packet is a request: one byte says what to do, one which gate to wait at.
 * The answer is the same packet. "Waits" are those of lib/wait.h, so the hook
 * is the real one.
 */
#include "tests/unit/unit.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "cache/region.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "src/loop.h"

#define RECEIVERS 2
#define GATES 64
#define REQUEST_MAX 8192
#define SHIFT 80

enum {
	DO_ANSWER,
	DO_WAIT,
	DO_QUIESCE,
	DO_PAUSE, /* until the gate is open */
	DO_BUFFER,
	DO_BUFFER_WAIT,
	DO_TAKE,
	DO_UNAWAITED, /* and open the gate */
	DO_LENGTHY,   /* at work until the gate is open */
};

static struct {
	int fds[2]; /* ours, the loop's */
	int event;
	struct loop *loop;
	_Atomic bool gate[GATES];
	_Atomic unsigned in_process, rejected, quiesced;
	_Atomic bool misaligned, paused, disturbed;
	struct region_pool *regions;
	struct region *taken[GATES]; /* by DO_TAKE, as its part */
} t;

static void answer(const unsigned char *packet)
{
	assert_int_equal(send(t.fds[1], packet, 2, 0), 2);
}

static void process(void *priv, void *request, size_t len)
{
	unsigned char *packet = request;
	unsigned char copy[2] = { packet[0], packet[1] };

	assert_int_equal(len, 2);
	if (((uintptr_t)request + SHIFT) % 4096)
		atomic_store(&t.misaligned, true);
	atomic_fetch_add(&t.in_process, 1);
	if (packet[0] == DO_BUFFER_WAIT)
		memset(loop_reply_buffer(1 << 20), 1, 1 << 20);
	if (packet[0] == DO_WAIT || packet[0] == DO_BUFFER_WAIT) {
		thread_blocks_begin();
		wait_event(&t.gate[packet[1]], atomic_load(&t.gate[packet[1]]));
		thread_blocks_end();
	} else if (packet[0] == DO_QUIESCE) {
		loop_quiesce(t.loop);
		atomic_store(&t.quiesced, 1);
	} else if (packet[0] == DO_PAUSE) {
		loop_pause(t.loop);
		/* Those that came wait, and do not count. */
		if (atomic_load(&t.in_process) != 1)
			atomic_store(&t.disturbed, true);
		atomic_store(&t.paused, true);
		wait_event(&t.gate[packet[1]], atomic_load(&t.gate[packet[1]]));
		if (atomic_load(&t.in_process) != 1)
			atomic_store(&t.disturbed, true);
		loop_resume(t.loop);
	} else if (packet[0] == DO_UNAWAITED) {
		loop_request_kind(LOOP_UNAWAITED);
		atomic_store(&t.gate[packet[1]], true);
	} else if (packet[0] == DO_LENGTHY) {
		loop_request_kind(LOOP_LENGTHY);
		while (!atomic_load(&t.gate[packet[1]]))
			sched_yield();
	} else if (packet[0] == DO_TAKE) {
		struct region *r = loop_request_region();
		char *page = (char *)region_memory(r) + REGION_PAGE;

		memset(page, packet[1] + 1, REGION_PAGE);
		region_note(r, 2 * REGION_PAGE);
		region_take(r, page, REGION_PAGE);
		t.taken[packet[1]] = r;
	} else if (packet[0] == DO_BUFFER) {
		char *small = loop_reply_buffer(10), *large;

		small[9] = 1;
		large = loop_reply_buffer(3 << 20);
		large[(3 << 20) - 1] = 1;
		if ((uintptr_t)large % 4096)
			atomic_store(&t.misaligned, true);
	}
	atomic_fetch_sub(&t.in_process, 1);
	answer(copy);
}

static void reject(void *priv, void *request, size_t len)
{
	atomic_fetch_add(&t.rejected, 1);
	answer(request);
}

static void begin_keeping(unsigned max_threads, size_t buffers_max)
{
	struct loop_config config = {
		.receivers = RECEIVERS,
		.max_threads = max_threads,
		.min_spares = 1,
		.request_max = REQUEST_MAX,
		.payload_shift = SHIFT,
		.spare_idle_ms = 50,
		.buffers_max = buffers_max,
		.process = process,
		.reject = reject,
	};

	memset(&t, 0, sizeof(t));
	t.regions = region_pool_new(REGION_PAGE + REQUEST_MAX, 1 << 20);
	assert_non_null(t.regions);
	config.regions = t.regions;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, t.fds), 0);
	t.event = eventfd(0, 0);
	assert_true(t.event >= 0);
	config.fd = t.fds[1];
	config.end_event = t.event;
	assert_int_equal(loop_start(&config, &t.loop), 0);
}

static void begin(unsigned max_threads)
{
	begin_keeping(max_threads, 0);
}

static void end(void)
{
	loop_free(t.loop);
	region_pool_free(t.regions);
	if (t.fds[0] >= 0)
		close(t.fds[0]);
	close(t.fds[1]);
	close(t.event);
}

static void ask(unsigned char what, unsigned char gate)
{
	unsigned char packet[2] = { what, gate };

	assert_int_equal(send(t.fds[0], packet, 2, 0), 2);
}

/* Far beyond any wait that ends well. */
#define PATIENCE_MS 60000

/* The next answer's gate. */
static unsigned expect_answer(void)
{
	struct pollfd pfd = { .fd = t.fds[0], .events = POLLIN };
	unsigned char packet[2];

	assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
	assert_int_equal(recv(t.fds[0], packet, 2, 0), 2);
	return packet[1];
}

static void open_gate(unsigned nr)
{
	atomic_store(&t.gate[nr], true);
	wake_up(&t.gate[nr]);
}

static void wait_for_end(void)
{
	struct pollfd pfd = { .fd = t.event, .events = POLLIN };

	assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
}

static void hang_up(void)
{
	shutdown(t.fds[0], SHUT_WR);
	wait_for_end();
}

static struct loop_stats stats(void)
{
	struct loop_stats st;

	loop_get_stats(t.loop, &st);
	return st;
}

/* Polls: the state follows from threads' last steps, which nobody signals. */
#define eventually(cond)                                                       \
	do {                                                                   \
		int tries_ = 0;                                                \
		while (!(cond)) {                                              \
			assert_true(tries_++ < PATIENCE_MS);                   \
			usleep(1000);                                          \
		}                                                              \
	} while (0)

static void test_requests_that_do_not_wait_need_no_hand_over(void **state)
{
	begin(64);
	for (unsigned i = 0; i < 1000; i++) {
		ask(DO_ANSWER, i % GATES);
		assert_int_equal(expect_answer(), i % GATES);
	}
	assert_int_equal(stats().handovers, 0);
	assert_int_equal(stats().receivers, RECEIVERS);
	assert_false(t.misaligned);
	hang_up();
	end();
}

static void test_waiting_requests_do_not_stop_the_service(void **state)
{
	begin(64);
	for (unsigned i = 0; i < 40; i++)
		ask(DO_WAIT, (unsigned char)i);
	eventually(atomic_load(&t.in_process) == 40);
	/* 40 wait; the others go on, by no more receivers than before. */
	for (unsigned i = 0; i < 100; i++) {
		ask(DO_ANSWER, 63);
		assert_int_equal(expect_answer(), 63);
		assert_true(stats().receivers <= RECEIVERS);
	}
	/* The last of the 40 may have come no further than its first step. Who waits
	 * while another one reads is replaced when the next request comes. */
	eventually(stats().handovers >= 40);
	ask(DO_ANSWER, 63);
	assert_int_equal(expect_answer(), 63);
	eventually(stats().receivers == RECEIVERS);
	for (unsigned i = 0; i < 40; i++)
		open_gate(i);
	for (unsigned i = 0; i < 40; i++)
		expect_answer();
	/* Spares that nobody needs end. */
	eventually(stats().threads == RECEIVERS + 1);
	assert_int_equal(stats().receivers, RECEIVERS);
	hang_up();
	end();
}

static void test_at_the_limit_the_first_to_finish_receives(void **state)
{
	begin(4);
	for (unsigned i = 0; i < 4; i++)
		ask(DO_WAIT, (unsigned char)i);
	eventually(atomic_load(&t.in_process) == 4);
	eventually(stats().receivers == 0);
	assert_int_equal(stats().threads, 4);
	assert_true(stats().short_of_threads > 0);
	ask(DO_ANSWER, 60);
	open_gate(2);
	assert_int_equal(expect_answer(), 2);
	assert_int_equal(expect_answer(), 60);
	for (unsigned i = 0; i < 4; i++)
		open_gate(i);
	for (unsigned i = 0; i < 3; i++)
		expect_answer();
	eventually(stats().receivers == RECEIVERS);
	hang_up();
	end();
}

static void test_a_thread_waits_twice_in_one_request(void **state)
{
	begin(8);
	for (unsigned round = 0; round < 200; round++) {
		unsigned nr = round % 8;

		atomic_store(&t.gate[nr], false);
		ask(DO_WAIT, (unsigned char)nr);
		open_gate(nr);
		assert_int_equal(expect_answer(), nr);
	}
	eventually(stats().receivers == RECEIVERS);
	hang_up();
	end();
}

static void test_quiesce_waits_for_the_others_then_rejects(void **state)
{
	begin(64);
	ask(DO_WAIT, 1);
	eventually(atomic_load(&t.in_process) == 1);
	ask(DO_QUIESCE, 2);
	eventually(atomic_load(&t.in_process) == 2);
	/* What comes before it has begun to wait is still carried out. */
	for (unsigned tries = 0; !atomic_load(&t.rejected); tries++) {
		assert_true(tries < PATIENCE_MS);
		usleep(1000);
		ask(DO_ANSWER, 3);
		assert_int_equal(expect_answer(), 3);
	}
	assert_int_equal(atomic_load(&t.quiesced), 0);
	open_gate(1);
	assert_int_equal(expect_answer(), 1);
	assert_int_equal(expect_answer(), 2);
	assert_int_equal(atomic_load(&t.quiesced), 1);
	hang_up();
	end();
}

static void test_pause_is_alone_then_all_go_on(void **state)
{
	bool seen[8] = { false };

	begin(64);
	ask(DO_WAIT, 1);
	eventually(atomic_load(&t.in_process) == 1);
	ask(DO_PAUSE, 2);
	eventually(atomic_load(&t.in_process) == 2);
	assert_false(atomic_load(&t.paused));
	open_gate(1);
	assert_int_equal(expect_answer(), 1);
	eventually(atomic_load(&t.paused));
	for (unsigned nr = 3; nr < 8; nr++)
		ask(DO_ANSWER, nr);
	open_gate(2);
	for (unsigned i = 2; i < 8; i++) {
		unsigned nr = (unsigned)expect_answer();

		assert_true(nr >= 2 && nr < 8 && !seen[nr]);
		seen[nr] = true;
	}
	assert_false(atomic_load(&t.disturbed));
	assert_int_equal(atomic_load(&t.rejected), 0);
	hang_up();
	end();
}

static void test_stop_ends_readers_and_waits_for_requests(void **state)
{
	begin(64);
	ask(DO_WAIT, 1);
	eventually(atomic_load(&t.in_process) == 1);
	open_gate(1);
	loop_stop(t.loop);
	assert_int_equal(stats().threads, 0);
	assert_int_equal(atomic_load(&t.in_process), 0);
	wait_for_end();
	end();
}

static void test_reply_buffers_grow_and_are_aligned(void **state)
{
	begin(64);
	for (unsigned i = 0; i < 8; i++) {
		ask(DO_BUFFER, 5);
		assert_int_equal(expect_answer(), 5);
	}
	assert_false(t.misaligned);
	hang_up();
	end();
}

/* A request's memory that was taken over is nobody's buffer until it comes back. */
static void test_requests_may_be_taken_over(void **state)
{
	begin(64);
	for (unsigned i = 0; i < GATES; i++) {
		ask(DO_TAKE, (unsigned char)i);
		assert_int_equal(expect_answer(), i);
		ask(DO_ANSWER, 0);
		assert_int_equal(expect_answer(), 0);
		/* Every second one goes soon. */
		for (unsigned k = i % 2 ? i - 1 : GATES; k < i; k++) {
			struct region *last = NULL, *r = t.taken[k];
			char *page = (char *)region_memory(r) + REGION_PAGE;

			assert_int_equal(*page, k + 1);
			region_release(&last, r, page, REGION_PAGE);
			region_release_end(&last);
			t.taken[k] = NULL;
		}
	}
	assert_false(t.misaligned);
	hang_up();
	for (unsigned i = 0; i < GATES; i++) {
		struct region *last = NULL, *r = t.taken[i];
		char *page;

		if (!r)
			continue;
		page = (char *)region_memory(r) + REGION_PAGE;
		assert_int_equal(page[0], i + 1);
		assert_int_equal(page[REGION_PAGE - 1], i + 1);
		region_release(&last, r, page, REGION_PAGE);
		region_release_end(&last);
	}
	end();
}

/* Memory of large requests stays with the threads up to a bound. */
static void test_buffers_are_kept_within_bounds(void **state)
{
	begin_keeping(8, 0);
	ask(DO_BUFFER, 1);
	assert_int_equal(expect_answer(), 1);
	eventually(stats().buffers_dropped == 1);
	assert_int_equal(stats().buffers_kept, 0);
	hang_up();
	end();

	begin_keeping(8, 100 << 20);
	/* Small requests change nothing; what was counted is not counted again. */
	for (unsigned i = 0; i < 20; i++) {
		ask(i % 2 ? DO_ANSWER : DO_BUFFER, (unsigned char)i);
		assert_int_equal(expect_answer(), i);
	}
	eventually(stats().buffers_kept >= 3 << 20);
	assert_in_range(stats().buffers_kept, 3 << 20,
			8 * ((3 << 20) + REQUEST_MAX));
	assert_int_equal(stats().buffers_dropped, 0);
	hang_up();
	assert_int_equal(stats().buffers_kept, 0);
	end();
}

/* A thread that was called up for a while and is idle again gives its own back. */
static void test_idle_spares_keep_no_buffers(void **state)
{
	begin_keeping(64, 100 << 20);
	for (unsigned i = 0; i < 8; i++)
		ask(DO_BUFFER_WAIT, (unsigned char)i);
	eventually(atomic_load(&t.in_process) == 8);
	for (unsigned i = 0; i < 8; i++)
		open_gate(i);
	for (unsigned i = 0; i < 8; i++)
		(void)expect_answer();
	/* Some may be receivers now. */
	eventually(stats().buffers_dropped >= 8 - RECEIVERS);
	assert_true(stats().buffers_kept <= RECEIVERS * ((1 << 20) + REQUEST_MAX));
	hang_up();
	end();
}

/* The client sleeps in between: receivers are fewer only if they are not busy. */
static void ask_until_receivers(unsigned char what, unsigned nr)
{
	for (unsigned tries = 0; stats().receivers != nr; tries++) {
		assert_true(tries < 100 * PATIENCE_MS);
		ask(what, 0);
		assert_int_equal(expect_answer(), 0);
		if (!(tries % 8))
			usleep(100);
	}
}

static void test_one_receiver_does_what_nobody_waits_for(void **state)
{
	begin(64);
	for (unsigned i = 1; i <= 8; i++) {
		ask_until_receivers(DO_UNAWAITED, 1);
		/* One is at work that only the next request ends. */
		ask(DO_LENGTHY, (unsigned char)i);
		ask(DO_UNAWAITED, (unsigned char)i);
		assert_int_equal(expect_answer(), i);
		assert_int_equal(expect_answer(), i);
		ask_until_receivers(DO_UNAWAITED, 1);
		/* One waits, the next is answered. */
		ask(DO_WAIT, (unsigned char)(i + 16));
		ask(DO_ANSWER, (unsigned char)(i + 32));
		assert_int_equal(expect_answer(), i + 32);
		open_gate(i + 16);
		assert_int_equal(expect_answer(), i + 16);
	}
	hang_up();
	end();
}

/* At work since before fewer were wanted: who does the rest goes on reading. */
static void test_the_last_reader_stays(void **state)
{
	begin(64);
	for (unsigned i = 1; i <= 4; i++) {
		ask_until_receivers(i % 2 ? DO_ANSWER : DO_LENGTHY, RECEIVERS);
		ask(DO_LENGTHY, (unsigned char)i);
		eventually(atomic_load(&t.in_process) == 1);
		for (unsigned n = 0; n < 2000; n++) {
			ask(DO_UNAWAITED, 0);
			assert_int_equal(expect_answer(), 0);
			if (!(n % 8))
				usleep(100);
		}
		ask(DO_UNAWAITED, (unsigned char)i);
		assert_int_equal(expect_answer(), i);
		assert_int_equal(expect_answer(), i);
		ask_until_receivers(DO_UNAWAITED, 1);
	}
	hang_up();
	end();
}

static void test_receivers_come_back(void **state)
{
	begin(64);
	for (unsigned i = 0; i < 4; i++) {
		ask_until_receivers(DO_UNAWAITED, 1);
		ask_until_receivers(i % 2 ? DO_ANSWER : DO_LENGTHY, RECEIVERS);
	}
	/* An idle one that is not wanted ends with the others. */
	ask_until_receivers(DO_UNAWAITED, 1);
	loop_stop(t.loop);
	assert_int_equal(stats().threads, 0);
	wait_for_end();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_that_do_not_wait_need_no_hand_over),
		cmocka_unit_test(test_waiting_requests_do_not_stop_the_service),
		cmocka_unit_test(test_at_the_limit_the_first_to_finish_receives),
		cmocka_unit_test(test_a_thread_waits_twice_in_one_request),
		cmocka_unit_test(test_quiesce_waits_for_the_others_then_rejects),
		cmocka_unit_test(test_pause_is_alone_then_all_go_on),
		cmocka_unit_test(test_stop_ends_readers_and_waits_for_requests),
		cmocka_unit_test(test_reply_buffers_grow_and_are_aligned),
		cmocka_unit_test(test_requests_may_be_taken_over),
		cmocka_unit_test(test_buffers_are_kept_within_bounds),
		cmocka_unit_test(test_idle_spares_keep_no_buffers),
		cmocka_unit_test(test_one_receiver_does_what_nobody_waits_for),
		cmocka_unit_test(test_the_last_reader_stays),
		cmocka_unit_test(test_receivers_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
