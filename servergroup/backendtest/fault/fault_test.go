package fault

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const whole = "0123456789abcdef"

func newProxy(t *testing.T) *Proxy {
	t.Helper()
	p, err := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		sent, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, whole+string(sent))
	}))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// ask returns the body as far as it came. It gives up after a while.
func ask(t *testing.T, p *Proxy, patience time.Duration) (status int, body string, header http.Header, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.Addr(), strings.NewReader("!"))
	require.NoError(t, err)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

func TestFaults(t *testing.T) {
	const long = time.Minute
	p := newProxy(t)
	f := func(fault Fault, patience time.Duration, wantStatus int, wantBody string, wantErr error) {
		t.Helper()
		require.NoError(t, p.Set(fault))
		status, body, _, err := ask(t, p, patience)
		if wantErr == nil {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, wantErr)
		}
		require.Equal(t, wantStatus, status)
		require.Equal(t, wantBody, body)
		require.NoError(t, p.Set(Fault{}))
		_, body, _, err = ask(t, p, long)
		require.NoError(t, err, "it does not recover")
		require.Equal(t, whole+"!", body)
	}
	late := context.DeadlineExceeded
	f(Fault{}, long, 200, whole+"!", nil)
	f(Latency(time.Millisecond), long, 200, whole+"!", nil)
	f(Latency(time.Hour), 20*time.Millisecond, 0, "", late)
	f(Jitter(0, time.Millisecond), long, 200, whole+"!", nil)
	f(Hang(), 20*time.Millisecond, 0, "", late)
	f(HangInBody(), time.Second, 200, whole[:8], late)
	f(Drip(time.Hour), time.Second, 200, whole[:1], late)
	f(Drip(time.Microsecond), long, 200, whole+"!", nil)
	f(Reset(), long, 0, "", syscall.ECONNRESET)
	f(ResetInBody(), long, 200, whole[:8], syscall.ECONNRESET)
	f(Refuse(), long, 0, "", syscall.ECONNREFUSED)
	f(Truncate(), long, 200, whole[:14], nil)
	f(Garbage(), long, 200, strings.Repeat("\x00\xff{]", 5), nil)
	f(Says(429, http.Header{"Retry-After": {"7"}}, "{}"), long, 429, "{}", nil)
}

func TestSays_SendsHeader(t *testing.T) {
	p := newProxy(t)
	require.NoError(t, p.Set(Says(429, http.Header{"Retry-After": {"7"}}, "{}")))
	_, _, header, err := ask(t, p, time.Minute)
	require.NoError(t, err)
	require.Equal(t, "7", header.Get("Retry-After"))
}

func TestClock_AnswersAsTheOther(t *testing.T) {
	p := newProxy(t)
	require.NoError(t, p.Set(Clock(-time.Hour, http.NotFoundHandler())))
	status, _, header, err := ask(t, p, time.Minute)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status)
	date, err := http.ParseTime(header.Get("Date"))
	require.NoError(t, err)
	require.InDelta(t, time.Hour, time.Since(date), float64(time.Minute))
}

func TestProxy_Counts(t *testing.T) {
	p := newProxy(t)
	transport := &http.Transport{}
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr(), nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.EqualValues(t, 3, p.Requests())
	require.EqualValues(t, 1, p.Open())
	transport.CloseIdleConnections()
	require.Eventually(t, func() bool { return p.Open() == 0 }, time.Minute, time.Millisecond)
}

// Refusing closes the connections that are open, and so does the end.
func TestProxy_EndsRequestsUnderWay(t *testing.T) {
	for _, end := range []func(p *Proxy) error{
		func(p *Proxy) error { return p.Set(Refuse()) },
		func(p *Proxy) error { p.Close(); return nil },
	} {
		p := newProxy(t)
		require.NoError(t, p.Set(Hang()))
		ended := make(chan error, 1)
		go func() {
			_, _, _, err := ask(t, p, time.Minute)
			ended <- err
		}()
		require.Eventually(t, func() bool { return p.Requests() == 1 }, time.Minute, time.Millisecond)
		require.NoError(t, end(p))
		err := <-ended
		require.Error(t, err)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, p.Open())
		p.Close()
		require.NoError(t, p.Set(Fault{}), "it stays closed")
		_, _, _, err = ask(t, p, time.Minute)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
}
