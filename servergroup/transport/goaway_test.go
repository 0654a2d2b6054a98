package transport

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	commoncfg "github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"
)

// connKey is the key of the connection in the context of a request.
type connKey struct{}

// http2Server is a client of a server that is asked by HTTP/2, as oneprom makes them.
func http2Server(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client, err := commoncfg.NewClientFromConfig(commoncfg.HTTPClientConfig{EnableHTTP2: true, TLSConfig: commoncfg.TLSConfig{InsecureSkipVerify: true}}, "test")
	require.NoError(t, err)
	t.Cleanup(client.CloseIdleConnections)
	client.CheckRedirect = CheckRedirect
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	return &Client{HTTP: client, Base: u, ReadPath: DefaultReadPath}
}

func connOf(r *http.Request) net.Conn { return r.Context().Value(connKey{}).(net.Conn) }

func evaluated(ctx context.Context, c *Client, size int) error {
	_, err := c.Evaluate(ctx, strings.Repeat("x", size), Steps{Step: 1}, Request{Labels: unchanged})
	return err
}

// TestClient_GoAwayUnderLoad: a server, or a proxy before it, ends its HTTP/2 connections again and again while queries run.
func TestClient_GoAwayUnderLoad(t *testing.T) {
	var requests, lost atomic.Int64
	conns := sync.Map{}
	c := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.ProtoMajor != 2 || r.Method != http.MethodPost || n == 0 {
			lost.Add(1)
		}
		conns.Store(connOf(r).RemoteAddr().String(), true)
		if requests.Add(1)%5 == 0 {
			w.Header().Set("Connection", "close") // net/http says GOAWAY, and ends the connection after the requests on it
		}
		w.Header().Set("Content-Type", typeJSON)
		_, _ = io.WriteString(w, emptyMatrix)
	})
	var clients sync.WaitGroup
	errs := make(chan error, 8*20)
	for range 8 {
		clients.Go(func() {
			for i := range 20 {
				errs <- evaluated(t.Context(), c, 1+i*1000)
			}
		})
	}
	clients.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Zero(t, lost.Load())
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	require.Greater(t, n, 10)
}

// TestClient_ConnectionsThatEndUnderRequests: a server ends a connection under the requests on it, after GOAWAY or without.
// What has no answer yet is sent again; of what has begun to be answered, it is said that the answer broke off.
func TestClient_ConnectionsThatEndUnderRequests(t *testing.T) {
	const held = 4
	for _, goAway := range []bool{true, false} {
		for _, begun := range []bool{true, false} {
			var first atomic.Pointer[net.Conn]
			holding := make(chan struct{}, held)
			c := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
				conn := connOf(r)
				first.CompareAndSwap(nil, &conn)
				w.Header().Set("Content-Type", typeJSON)
				switch query := r.FormValue("query"); {
				case *first.Load() == conn && query == "xx":
					if begun {
						_, _ = io.WriteString(w, "{")
						_ = http.NewResponseController(w).Flush()
					}
					holding <- struct{}{}
					<-r.Context().Done()
					return
				case goAway && query == "xxx":
					w.Header().Set("Connection", "close")
				}
				_, _ = io.WriteString(w, emptyMatrix)
			})
			require.NoError(t, evaluated(t.Context(), c, 1))
			errs := make(chan error, held)
			for range held {
				go func() { errs <- evaluated(t.Context(), c, 2) }()
			}
			for range held {
				<-holding
			}
			require.NoError(t, evaluated(t.Context(), c, 3))
			require.NoError(t, (*first.Load()).Close())
			for range held {
				if err := <-errs; begun {
					require.ErrorContains(t, err, "answer broke off: ")
					require.Equal(t, ClassTransport, ClassOf(err))
				} else {
					require.NoError(t, err)
				}
			}
		}
	}
}

// TestClient_FailuresOfARequestAreNotRepeated: the connection is used before and after.
func TestClient_FailuresOfARequestAreNotRepeated(t *testing.T) {
	var requests atomic.Int64
	c := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1); r.FormValue("query") == "xx" {
			panic(http.ErrAbortHandler) // which resets the stream
		}
		w.Header().Set("Content-Type", typeJSON)
		_, _ = io.WriteString(w, emptyMatrix)
	})
	require.NoError(t, evaluated(t.Context(), c, 1))
	require.ErrorContains(t, evaluated(t.Context(), c, 2), "stream error")
	require.EqualValues(t, 2, requests.Load())
}
