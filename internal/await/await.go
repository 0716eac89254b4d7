// SPDX-License-Identifier: Apache-2.0

// Package await lets tests wait for what other processes do. A test that waits
// for a number of seconds passes on an idle machine and fails on a busy one, so
// the only end of waiting here is the one that the whole test run has.
package await

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// reserve is kept of a test's time for saying what it waited for and for
// cleaning up.
const reserve = 20 * time.Second

// End is shortly before the end of the whole test run, for what takes a deadline;
// the zero time where there is none.
func End(tb testing.TB) time.Time {
	if t, ok := tb.(interface{ Deadline() (time.Time, bool) }); ok {
		if d, ok := t.Deadline(); ok {
			return d.Add(-reserve)
		}
	}
	return time.Time{}
}

// Until polls until reached holds. It fails the test by the name of what is
// awaited when the time of the whole test run is about to end (go test -timeout),
// and at once when reached returns an error: what is awaited cannot come any more.
func Until(tb testing.TB, what string, reached func() (bool, error)) {
	tb.Helper()
	end := End(tb)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		ok, err := reached()
		if err != nil {
			tb.Fatalf("while waiting for %s: %v", what, err)
		}
		if ok {
			return
		}
		if !end.IsZero() && time.Now().After(end) {
			tb.Fatalf("%s did not come about in the time of the whole test run", what)
		}
		time.Sleep(pause)
	}
}

// True is Until for a condition that cannot fail.
func True(tb testing.TB, what string, reached func() bool) {
	tb.Helper()
	Until(tb, what, func() (bool, error) { return reached(), nil })
}

// Moment lets a random time pass, at most longest. It is for tests that interrupt
// at any point whatsoever: they may assert what holds at every point, and must not
// assert that a certain point was reached meanwhile.
func Moment(longest time.Duration) {
	time.Sleep(rand.N(longest + 1))
}

// patience is for programs of a test that are no test themselves.
const patience = 10 * time.Minute

// Patiently is Until for the helper processes of tests, which have no test to fail:
// it tells whether the condition was reached in ten minutes.
func Patiently(reached func() bool) bool {
	for end := time.Now().Add(patience); !reached(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Context ends shortly before the time of the whole test run does, so that what
// was started with it is killed and the test says what it waited for.
func Context(tb testing.TB) context.Context {
	end := End(tb)
	if end.IsZero() {
		return tb.Context()
	}
	ctx, cancel := context.WithDeadline(tb.Context(), end)
	tb.Cleanup(cancel)
	return ctx
}
