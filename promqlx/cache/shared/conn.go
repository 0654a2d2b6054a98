package shared

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// maxValue is how large a value may be, with its seal, and maxReply how large all values of an
	// answer may be (bytes).
	maxValue = 64 << 20
	maxReply = 64 << 20
	// firstBytes is how much memory is taken for a value before any of it has come (bytes).
	firstBytes = 64 << 10
	// maxIdleTime is how long a connection may have been idle: firewalls forget those, and say nothing.
	maxIdleTime = 30 * time.Second
)

// conn is a connection. Reading from it takes no more memory than has come, or may come.
type conn struct {
	raw  net.Conn // below TLS: closing it waits for nobody
	r    *bufio.Reader
	w    *bufio.Writer
	left int       // bytes of values that the answer may still have
	idle time.Time // since when
}

// errFull is the error of an answer whose values are too large together. That may be our own doing.
var errFull = fmt.Errorf("the answer has more than %d bytes", maxReply)

// protocolError is that of an answer that is none in the protocol. What was said is shown in part.
func protocolError(said []byte) error {
	return fmt.Errorf("unexpected answer: %.100q", said)
}

var crlf = []byte("\r\n")

func (c *conn) close() { _ = c.raw.Close() }

// line returns the next line, without its end. It is valid until something else is read.
func (c *conn) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, protocolError(line)
	}
	if err != nil {
		return nil, err
	}
	text, ok := bytes.CutSuffix(line, crlf)
	if !ok {
		return nil, protocolError(line)
	}
	return text, nil
}

// value returns the next n bytes, which a line end follows.
func (c *conn) value(n int) ([]byte, error) {
	if n < 0 || n > maxValue {
		return nil, fmt.Errorf("a value of %d bytes, of at most %d", n, maxValue)
	}
	if n > c.left {
		return nil, errFull
	}
	c.left -= n
	value := make([]byte, 0, min(n, firstBytes))
	for len(value) < n {
		value = slices.Grow(value, min(n-len(value), max(len(value), firstBytes)))
		more := value[len(value):min(n, cap(value))]
		if _, err := io.ReadFull(c.r, more); err != nil {
			return nil, err
		}
		value = value[:len(value)+len(more)]
	}
	var end [2]byte
	if _, err := io.ReadFull(c.r, end[:]); err != nil {
		return nil, err
	}
	if !bytes.Equal(end[:], crlf) {
		return nil, protocolError(end[:])
	}
	return value, nil
}

// connect returns a new connection to a server, which has said hello.
func (s *server) connect(ctx context.Context) (*conn, error) {
	raw, err := s.opts.dial(ctx, "tcp", s.node.address)
	if err != nil {
		return nil, err
	}
	stream := raw
	if s.opts.TLS != nil {
		cfg := s.opts.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName = s.node.name
		}
		secured := tls.Client(raw, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		stream = secured
	}
	c := &conn{raw: raw, r: bufio.NewReader(stream), w: bufio.NewWriter(stream)}
	if err := s.use(ctx, c, s.protocol.hello); err != nil {
		return nil, err
	}
	return c, nil
}

// use has an operation use a connection until ctx ends. The connection is closed if that fails, or
// if it cannot be used again.
func (s *server) use(ctx context.Context, c *conn, op func(*conn) error) (err error) {
	usable := false
	defer func() {
		if !usable {
			c.close()
		}
	}()
	interrupt := context.AfterFunc(ctx, c.close)
	c.left = maxReply
	if err = op(c); err == nil && c.r.Buffered() > 0 {
		err = errors.New("more was answered than was asked for")
	}
	if !interrupt() { // what failed, failed because of that
		return context.Cause(ctx)
	}
	usable = err == nil
	return err
}

// pool keeps connections that nobody uses.
type pool struct {
	most int

	mtx    sync.Mutex // guards the fields below
	idle   []*conn
	closed bool
}

// take returns the connection that was used last, nil if there is none.
func (p *pool) take() *conn {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[len(p.idle)-1]
	if time.Since(c.idle) > maxIdleTime { // and so are all before it
		p.discard()
		return nil
	}
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

// put keeps a connection, or closes it.
func (p *pool) put(c *conn) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	if p.closed || len(p.idle) >= p.most {
		c.close()
		return
	}
	c.idle = time.Now()
	p.idle = append(p.idle, c)
}

// close closes all connections, and those that are put later.
func (p *pool) close() {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	p.closed = true
	p.discard()
}

func (p *pool) discard() {
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}
