package unread

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections hold nothing: what is written waits until it is read.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs f with answers that a server gives to clients: `ask` connects one.
func inBubble(t *testing.T, o Options, h http.HandlerFunc, f func(t *testing.T, a *Answers, ask func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Registerer = prometheus.NewRegistry()
		a := New(o)
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{Handler: a.Serve(h)}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		var clients []net.Conn
		f(t, a, func() net.Conn {
			ours, theirs := net.Pipe()
			l.conns <- theirs
			clients = append(clients, ours)
			_, err := io.WriteString(ours, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			synctest.Wait()
			return ours
		})
		for _, c := range clients {
			_ = c.Close()
		}
		require.NoError(t, server.Close())
		<-done
	})
}

// answering answers with so many bytes, from handlers that report what became of it.
func answering(bytes int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, bytes)) }
}

// readSlowly reads an answer, so many bytes and then a pause. It returns how many bytes the body had.
func readSlowly(c net.Conn, each int, pause time.Duration) (int64, error) {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for {
		n, err := io.CopyN(io.Discard, resp.Body, int64(each))
		if total += n; err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		time.Sleep(pause)
	}
}

func TestServe_ClientThatDoesNotReadIsCutOff(t *testing.T) {
	inBubble(t, Options{Timeout: time.Minute}, answering(10<<20), func(t *testing.T, a *Answers, ask func() net.Conn) {
		for range 48 {
			ask()
		}
		require.EqualValues(t, 48*10<<20, a.Bytes())
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 48*10<<20, a.Bytes())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Zero(t, a.Bytes())
		require.InDelta(t, 48, testutil.ToFloat64(a.cut), 0)
	})
}

func TestServe_SlowClientGetsAllOfItsAnswer(t *testing.T) {
	inBubble(t, Options{Timeout: time.Minute}, answering(2<<20), func(t *testing.T, a *Answers, ask func() net.Conn) {
		n, err := readSlowly(ask(), piece, 50*time.Second) // for half an hour
		require.NoError(t, err)
		require.EqualValues(t, 2<<20, n)
		require.Zero(t, a.Bytes())
	})
}

// The connection of a client that has its answer stays open however long it is idle.
func TestServe_DeadlineIsNotThatOfTheNextAnswer(t *testing.T) {
	wait := time.Duration(0)
	answer := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		answering(10)(w, r)
	}
	inBubble(t, Options{Timeout: time.Minute}, answer, func(t *testing.T, _ *Answers, ask func() net.Conn) {
		c := ask()
		_, err := readSlowly(c, piece, 0)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		wait = time.Hour // of a query, which is no time of its client
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		n, err := readSlowly(c, piece, 0)
		require.NoError(t, err)
		require.EqualValues(t, 10, n)
	})
}

func TestServe_TooManyUnreadBytesCutOffWhoHasStoppedToReadLongest(t *testing.T) {
	inBubble(t, Options{Timeout: time.Hour, Most: 25 << 20}, answering(10<<20), func(t *testing.T, a *Answers, ask func() net.Conn) {
		ask()
		time.Sleep(10 * time.Second)
		reading := ask()
		time.Sleep(10 * time.Second)
		got := make(chan int64, 1)
		go func() {
			n, _ := readSlowly(reading, piece, stalled/2)
			got <- n
		}()
		time.Sleep(time.Second)
		require.Zero(t, testutil.ToFloat64(a.cut))
		ask() // the third
		time.Sleep(stalled / 4)
		synctest.Wait()
		require.InDelta(t, 1, testutil.ToFloat64(a.cut), 0, "the first")
		require.LessOrEqual(t, a.Bytes(), int64(20<<20))
		ask() // does not read either, as the third does not
		time.Sleep(10 * stalled)
		synctest.Wait()
		require.LessOrEqual(t, a.Bytes(), int64(25<<20))
		require.EqualValues(t, 10<<20, <-got)
	})
}

// A text that is compressed on its way waits whole.
func TestWhole_WaitsBeforeItIsCompressed(t *testing.T) {
	compressed := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = Whole(tenth{w}, struct{ http.ResponseWriter }{w}).Write(make([]byte, 1<<20)) // what cannot be unwrapped is left alone
		_, _ = Whole(tenth{w}, w).Write(make([]byte, 10<<20))
	}
	inBubble(t, Options{Timeout: time.Minute}, compressed, func(t *testing.T, a *Answers, ask func() net.Conn) {
		c := ask()
		go func() { _, _ = io.CopyN(io.Discard, c, 300<<10) }()
		synctest.Wait()
		require.Greater(t, a.Bytes(), int64(5<<20))
	})
}

// tenth writes a tenth of what it is given.
type tenth struct{ http.ResponseWriter }

func (w tenth) Write(b []byte) (int, error) {
	_, err := w.ResponseWriter.Write(b[:len(b)/10])
	return len(b), err
}
