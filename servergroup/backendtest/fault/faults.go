package fault

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is a way to fail. The zero value is none.
type Fault struct {
	refuse bool // connections
	// answer answers a request whose body has been read; nil: as the backend does.
	answer func(w http.ResponseWriter, r *http.Request, backend http.Handler)
}

// Refuse closes the listener: connections are refused, and open ones end.
func Refuse() Fault { return Fault{refuse: true} }

// Latency delays the beginning of every response by this much.
func Latency(d time.Duration) Fault { return Jitter(d, d) }

// Jitter delays the beginning of responses by a random time between the two.
func Jitter(least, most time.Duration) Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		late := time.NewTimer(least + rand.N(most-least+1))
		defer late.Stop()
		select {
		case <-late.C:
			backend.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}}
}

// Hang never answers.
func Hang() Fault {
	return Fault{answer: func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }}
}

// HangInBody sends the header and half of the body, and then nothing more.
func HangInBody() Fault {
	return edited(func(w http.ResponseWriter, r *http.Request, a *recorded) {
		a.begin(w)
		_, _ = w.Write(a.body.Bytes()[:a.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

// Drip sends the body byte by byte.
func Drip(interval time.Duration) Fault {
	return edited(func(w http.ResponseWriter, r *http.Request, a *recorded) {
		a.begin(w)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for _, b := range a.body.Bytes() {
			if _, err := w.Write([]byte{b}); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
}

// Reset reads the request and resets the connection.
func Reset() Fault {
	return Fault{answer: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { reset(w) }}
}

// ResetInBody announces the complete body and resets the connection after half of it.
func ResetInBody() Fault {
	return edited(func(w http.ResponseWriter, _ *http.Request, a *recorded) {
		w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
		a.begin(w)
		_, _ = w.Write(a.body.Bytes()[:a.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		reset(w)
	})
}

func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // impossible: HTTP/1
		panic(fmt.Sprintf("BUG: a connection cannot be taken over: %v", err))
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// Truncate sends the body without its end as if it were complete. The cut is within the last message:
// a streamed remote read that is cut between two messages is a valid response.
func Truncate() Fault {
	return edited(func(w http.ResponseWriter, _ *http.Request, a *recorded) {
		a.begin(w)
		_, _ = w.Write(a.body.Bytes()[:max(0, a.body.Len()-3)])
	})
}

// Garbage sends another body of the same length.
func Garbage() Fault {
	return edited(func(w http.ResponseWriter, _ *http.Request, a *recorded) {
		a.begin(w)
		_, _ = io.WriteString(w, strings.Repeat("\x00\xff{]", a.body.Len()/4+1))
	})
}

// Says sends the same response to every request.
func Says(status int, header http.Header, body string) Fault {
	return Fault{answer: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		maps.Copy(w.Header(), header)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}}
}

// Clock is a server whose clock is wrong by this much: it dates its responses by that clock, and has the
// samples of shifted.
func Clock(wrong time.Duration, shifted http.Handler) Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Date", time.Now().Add(wrong).UTC().Format(http.TimeFormat))
		shifted.ServeHTTP(w, r)
	}}
}

// edited sends a changed response of the backend.
func edited(send func(w http.ResponseWriter, r *http.Request, a *recorded)) Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		a := &recorded{header: http.Header{}, status: http.StatusOK}
		backend.ServeHTTP(a, r)
		send(w, r, a)
	}}
}

// recorded is a response of the backend.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *recorded) Header() http.Header         { return a.header }
func (a *recorded) WriteHeader(status int)      { a.status = status }
func (a *recorded) Write(b []byte) (int, error) { return a.body.Write(b) }

// Flush implements http.Flusher, without which streamed remote read fails.
func (a *recorded) Flush() {}

// begin sends status and header.
func (a *recorded) begin(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
}
