package shared

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/oneprom/oneprom/servergroup/guard"
)

const (
	// tripInARow failures in a row open the breaker of a server. So does tripShare of tripVolume
	// attempts, or more, within tripWindow.
	tripInARow = 3
	tripVolume = 10
	tripShare  = 0.5
	tripWindow = 30 * time.Second
	tripBucket = 3 * time.Second
	// rest is how long a server is left alone before it is tried again.
	rest = 5 * time.Second
)

// server is one server: it is asked unless it has failed too often.
type server struct {
	node     node
	hash     uint64
	opts     Options
	protocol protocol
	pool     pool
	breaker  *gobreaker.CircuitBreaker[struct{}]
	lastErr  atomic.Pointer[error]

	mtx    sync.Mutex // guards the fields below
	state  gobreaker.State
	closed bool
}

func newServer(n node, o Options, p protocol) *server {
	s := &server{node: n, hash: hashOf(n.address), opts: o, protocol: p, pool: pool{most: o.MaxIdle}}
	s.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1, Interval: tripWindow, BucketPeriod: tripBucket, Timeout: rest,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			known := c.TotalFailures + c.TotalSuccesses
			return c.ConsecutiveFailures >= tripInARow || known >= tripVolume && float64(c.TotalFailures) >= tripShare*float64(known)
		},
		IsExcluded:    func(err error) bool { return errors.Is(err, errGivenUp) || errors.Is(err, errFull) },
		OnStateChange: s.stateChanged,
	})
	o.Metrics.servers.WithLabelValues(gobreaker.StateClosed.String()).Inc()
	return s
}

func (s *server) stateChanged(_ string, from, to gobreaker.State) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if s.closed {
		return
	}
	s.state = to
	s.opts.Metrics.servers.WithLabelValues(from.String()).Dec()
	s.opts.Metrics.servers.WithLabelValues(to.String()).Inc()
	switch {
	case from == gobreaker.StateClosed:
		s.opts.Logger.Warn("server of the shared cache fails, and is left alone for a while", "server", s.node.address, "err", *s.lastErr.Load())
	case to == gobreaker.StateClosed:
		s.opts.Logger.Info("server of the shared cache answers again", "server", s.node.address)
	}
}

// close closes the connections of a server that is gone. It is not in the metrics from then on.
func (s *server) close() {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.closed = true
	s.opts.Metrics.servers.WithLabelValues(s.state.String()).Dec()
	s.pool.close()
}

// get returns the values of names, nil where there is none, and with an error what came before it.
func (s *server) get(ctx context.Context, names []string) ([][]byte, error) {
	out := make([][]byte, len(names))
	err := s.do(ctx, "get", s.opts.Timeout, func(c *conn) error {
		values, err := s.protocol.get(c, names)
		copy(out, values)
		return err
	})
	return out, err
}

// set writes items, and counts what became of them.
func (s *server) set(ctx context.Context, items []item) {
	refused, sent := 0, 0
	err := s.do(ctx, "set", s.opts.WriteTimeout, func(c *conn) (err error) {
		refused, err = s.protocol.set(c, items)
		return err
	})
	m := s.opts.Metrics
	if err != nil {
		m.count("set", resultOf(err, ""), len(items))
		return
	}
	for _, i := range items {
		sent += len(i.value)
	}
	m.bytes.WithLabelValues("set").Add(float64(sent))
	m.count("set", "stored", len(items)-refused)
	m.count("set", "error", refused)
}

// errGivenUp is the error of an attempt that its caller gave up: it says nothing of the server.
var errGivenUp = errors.New("given up")

// do makes an attempt at an operation, unless the breaker is open.
func (s *server) do(ctx context.Context, operation string, timeout time.Duration, op func(*conn) error) error {
	_, err := s.breaker.Execute(func() (struct{}, error) {
		began := time.Now()
		err := guard.Call(func() error { return s.attempt(ctx, timeout, op) })
		s.opts.Metrics.seconds.WithLabelValues(operation).Observe(time.Since(began).Seconds())
		switch {
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("%w: %w", errGivenUp, err)
		case err != nil:
			s.lastErr.Store(&err)
		}
		return struct{}{}, err
	})
	return err
}

// attempt has an operation use a connection for up to timeout.
func (s *server) attempt(ctx context.Context, timeout time.Duration, op func(*conn) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	if c := s.pool.take(); c != nil {
		err := s.use(ctx, c, op)
		if err == nil {
			s.pool.put(c)
		}
		if !hungUp(err) {
			return err
		}
		// The server was started again, or has closed what was idle.
	}
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if err := s.use(ctx, c, op); err != nil {
		return err
	}
	s.pool.put(c)
	return nil
}

// hungUp reports whether an error is that of a connection that the other side has closed.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
