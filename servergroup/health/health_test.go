package health

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	errBroken = errors.New("broken")
	errBusy   = errors.New("busy")
	errOwn    = errors.New("given up")
	errOdd    = errors.New("odd")
)

// patient is a replica for tests, whose probes fail as long as sick is set, and hang as
// long as hung is.
type patient struct {
	*Replica
	sick, hung atomic.Bool
	probes     atomic.Int64
	states     []State
}

func newPatient(t *testing.T) *patient {
	p := &patient{}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	p.Replica = NewReplica(Options{
		URL: "http://a", Concurrency: 4, Logger: slog.New(slog.DiscardHandler),
		Judge: func(err error) (Outcome, time.Duration) {
			switch {
			case err == nil:
				return Fine, 0
			case errors.Is(err, errBusy):
				return Loaded, 2 * time.Second
			case errors.Is(err, errOwn), errors.Is(err, context.Canceled):
				return Unknown, 0
			case errors.Is(err, errOdd):
				return Unclear, 0
			}
			return Failed, 0
		},
		Run:     func(f func(context.Context)) bool { go f(ctx); return true },
		Changed: func(to State) { p.states = append(p.states, to) },
	})
	p.SetProbe(func(ctx context.Context) error {
		p.probes.Add(1)
		if p.hung.Load() {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		if p.sick.Load() {
			return errBroken
		}
		return nil
	})
	return p
}

// logged has the log of the replica written to a buffer.
func (p *patient) logged() *bytes.Buffer {
	var b bytes.Buffer
	p.opts.Logger = slog.New(slog.NewTextHandler(&b, nil))
	return &b
}

// TestBreaker_LogsOnce: attempts have opened the breaker when the probes fail that the first of them
// has started.
func TestBreaker_LogsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		log := p.logged()
		p.hung.Store(true)
		for range tripVolume {
			require.Equal(t, errBroken, p.attempt(t, errBroken))
		}
		require.Equal(t, Open, p.State())
		time.Sleep(time.Minute)
		p.hung.Store(false)
		time.Sleep(2 * longestRest)
		synctest.Wait()
		require.Equal(t, HalfOpen, p.State())
		require.Equal(t, 1, strings.Count(log.String(), "circuit breaker opened"), log)
		require.Equal(t, 1, strings.Count(log.String(), "lets requests through again"), log)
		require.Equal(t, []State{Open, HalfOpen}, p.states)
	})
}

// TestBreaker_BlamesTheLastError: what failed long ago is not why it opens now.
func TestBreaker_BlamesTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		log := p.logged()
		require.Error(t, p.attempt(t, errors.New("an old failure")))
		time.Sleep(5 * time.Minute)
		require.NoError(t, p.attempt(t, nil))
		p.hung.Store(true)
		p.Suspect()
		time.Sleep(3 * probeWait)
		synctest.Wait()
		require.EqualError(t, p.attempt(t, nil), "http://a: not asked, as its circuit breaker is open: no answer to a probe within 1s")
		require.NotContains(t, log.String(), "an old failure")
		p.hung.Store(false)
		p.sick.Store(true)
		time.Sleep(2 * longestRest)
		synctest.Wait()
		require.EqualError(t, p.attempt(t, nil), "http://a: not asked, as its circuit breaker is open: broken", "what it says now")
		p.Force(Open)
		require.EqualError(t, p.attempt(t, nil), "http://a: not asked, as its circuit breaker is open: an administrator has opened it")
	})
}

// attempt makes one that returns err.
func (p *patient) attempt(t *testing.T, err error) error {
	return p.Do(t.Context(), nil, false, func(context.Context) error { return err })
}

func isOpen(err error) bool {
	var open *OpenError
	return errors.As(err, &open)
}

func TestBreaker_OpensAfterFailuresAndClosesAfterARamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		for range tripVolume {
			require.Equal(t, Closed, p.State())
			require.Equal(t, errBroken, p.attempt(t, errBroken))
			synctest.Wait()
			require.False(t, p.Doubted(), "it has answered its probe")
		}
		p.sick.Store(true)
		err := p.attempt(t, nil)
		require.True(t, isOpen(err))
		require.EqualError(t, err, "http://a: not asked, as its circuit breaker is open: broken")
		require.False(t, p.Usable())

		// It is probed less and less often: after 0.5, 1, 2, 4 s, and then every 5 s, more or
		// less.
		before := p.probes.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.InDelta(t, 14, p.probes.Load()-before, 4)
		p.sick.Store(false)
		time.Sleep(longestRest * 13 / 10)
		synctest.Wait()
		require.Equal(t, HalfOpen, p.State())
		require.True(t, p.Usable())

		// The probe was the first success of the ramp, in which only so many are under way.
		release := make(chan struct{})
		ended := make(chan error)
		for range rampRequests - 1 {
			go func() {
				ended <- p.Do(t.Context(), nil, false, func(context.Context) error { <-release; return nil })
			}()
		}
		synctest.Wait()
		require.True(t, isOpen(p.attempt(t, nil)))
		close(release)
		for range rampRequests - 1 {
			require.NoError(t, <-ended)
		}
		require.Equal(t, Closed, p.State())
		require.NoError(t, p.attempt(t, nil))
		require.Equal(t, []State{Open, HalfOpen, Closed}, p.states)
	})
}

func TestBreaker_FailureOnTheRampOpensItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		for range tripVolume {
			_ = p.attempt(t, errBroken)
		}
		time.Sleep(2 * firstRest)
		require.Equal(t, HalfOpen, p.State())
		require.Equal(t, errBroken, p.attempt(t, errBroken))
		require.Equal(t, Open, p.State())
		// The next rest is longer.
		time.Sleep(firstRest * 12 / 10)
		require.Equal(t, Open, p.State())
		time.Sleep(firstRest * 13 / 10)
		require.Equal(t, HalfOpen, p.State())
	})
}

func TestBreaker_WhatDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		for range 10 * tripVolume {
			require.Equal(t, errOwn, p.attempt(t, errOwn))
		}
		require.Equal(t, Closed, p.State())
		// Fewer than half of the attempts of the window.
		for range 3 * tripVolume {
			require.NoError(t, p.attempt(t, nil))
			require.NoError(t, p.attempt(t, nil))
			_ = p.attempt(t, errBroken)
		}
		require.Equal(t, Closed, p.State())
		// What is older than the window is forgotten.
		require.NoError(t, p.attempt(t, nil))
		for range tripVolume - 1 {
			_ = p.attempt(t, errBroken)
		}
		time.Sleep(tripWindow + tripBucket)
		require.NoError(t, p.attempt(t, nil))
		_ = p.attempt(t, errBroken)
		require.Equal(t, Closed, p.State())
	})
}

// TestBreaker_QuestionsDoNotOpenIt: failures that a question may have brought about do not count as long
// as probes are answered.
func TestBreaker_QuestionsDoNotOpenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		for range 10 * tripVolume {
			require.Equal(t, errOdd, p.attempt(t, errOdd))
			synctest.Wait()
			require.False(t, p.Doubted(), "it has answered its probe")
		}
		require.Equal(t, Closed, p.State())
		require.EqualValues(t, 10*tripVolume, p.probes.Load())

		p.SetProbe(func(context.Context) error { return errOdd })
		require.Equal(t, errOdd, p.attempt(t, errOdd))
		synctest.Wait()
		require.Equal(t, Open, p.State(), "it answers the simplest question so, too")
	})
}

// TestBreaker_Blame: what turns out to be the replica's doing counts.
func TestBreaker_Blame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		for range tripVolume {
			require.Equal(t, Closed, p.State())
			require.Equal(t, errOdd, p.attempt(t, errOdd))
			p.Blame(errOdd)
			synctest.Wait()
		}
		require.Equal(t, Open, p.State())
	})
}

// TestDo_HungReplica: an attempt that hangs ends when probes hang, too; a slow one goes
// on when they are answered.
func TestDo_HungReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		p.hung.Store(true)
		began := time.Now()
		hang := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
		require.ErrorIs(t, p.Do(t.Context(), nil, false, hang), errHung)
		require.Equal(t, leastUnusual+probesToOpen*probeWait, time.Since(began))
		require.Equal(t, Open, p.State())

		// Asked regardless, it does not hold anybody for longer.
		began = time.Now()
		require.ErrorIs(t, p.Do(t.Context(), nil, true, hang), errHung)
		require.LessOrEqual(t, time.Since(began), leastUnusual+(probesToOpen+1)*probeWait)

		p.hung.Store(false)
		time.Sleep(2 * longestRest)
		synctest.Wait()
		require.Equal(t, HalfOpen, p.State())
		slow := func(context.Context) error { time.Sleep(time.Minute); return nil }
		require.NoError(t, p.Do(t.Context(), nil, false, slow))
	})
}

// TestDo_FailureHasItProbed: one that does not answer its probe either is not tried again
// and again.
func TestDo_FailureHasItProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		p.sick.Store(true)
		_ = p.attempt(t, errBroken)
		synctest.Wait()
		require.Equal(t, Open, p.State())
	})
}

func TestDo_Regardless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		p.sick.Store(true)
		for range tripVolume {
			_ = p.attempt(t, errBroken)
		}
		p.sick.Store(false)
		require.True(t, isOpen(p.attempt(t, nil)))
		require.NoError(t, p.Do(t.Context(), nil, true, func(context.Context) error { return nil }))
		require.Equal(t, HalfOpen, p.State())
	})
}

func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		p.Force(Open)
		require.True(t, isOpen(p.attempt(t, nil)))
		require.True(t, isOpen(p.Do(t.Context(), nil, true, func(context.Context) error { return nil })))
		p.Force(Closed)
		for range 3 * tripVolume {
			require.Equal(t, errBroken, p.attempt(t, errBroken))
		}
		require.Equal(t, Closed, p.State())
		p.Force(Auto)
		require.Equal(t, Closed, p.State())
		require.NoError(t, p.attempt(t, nil))
	})
}

func TestClose_EndsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		p.sick.Store(true)
		for range tripVolume {
			_ = p.attempt(t, errBroken)
		}
		p.Close()
		synctest.Wait()
		probes := p.probes.Load()
		time.Sleep(time.Minute)
		require.Equal(t, probes, p.probes.Load())
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latency
		require.Equal(t, unknownLate, l.late())
		require.Equal(t, leastUnusual, l.unusual())
		for i := range 1000 {
			l.observe(time.Duration(i) * time.Millisecond)
		}
		time.Sleep(time.Second)
		require.InDelta(t, 0.95, l.late().Seconds(), 0.01)
		require.InDelta(t, 3*0.99, l.unusual().Seconds(), 0.03)
		// It forgets.
		time.Sleep(latencyWindow / 2)
		for range 100 {
			l.observe(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.InDelta(t, 0.95, l.late().Seconds(), 0.01)
		time.Sleep(latencyWindow / 2)
		for range 100 {
			l.observe(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.Equal(t, leastLate, l.late())
		time.Sleep(latencyWindow)
		require.Equal(t, unknownLate, l.late())
	})
}

// TestReplica_OpensWhileProbesFail: failures of attempts and of probes at the same time do not wait for
// each other.
func TestReplica_OpensWhileProbesFail(t *testing.T) {
	broken := errors.New("broken")
	for range 2000 {
		var running sync.WaitGroup
		life, end := context.WithCancel(t.Context())
		r := NewReplica(Options{
			URL: "http://a", Logger: slog.New(slog.DiscardHandler), Changed: func(State) { runtime.Gosched() },
			Judge: func(err error) (Outcome, time.Duration) {
				if err != nil {
					return Failed, 0
				}
				return Fine, 0
			},
			Run: func(f func(context.Context)) bool { running.Go(func() { f(life) }); return true },
		})
		r.SetProbe(func(context.Context) error { return broken })
		var attempts sync.WaitGroup
		for range 8 {
			attempts.Go(func() { _ = r.Do(t.Context(), nil, false, func(context.Context) error { return broken }) })
		}
		attempts.Wait()
		end()
		running.Wait()
	}
}
