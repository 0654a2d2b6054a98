package transport

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// everyRequest are all requests that a client makes, by what they are for. Each returns a text
// that depends on its answer.
var everyRequest = map[string]func(ctx context.Context, c *Client) (string, error){
	"alive": func(ctx context.Context, c *Client) (string, error) { return "", c.Alive(ctx) },
	"identify": func(ctx context.Context, c *Client) (string, error) {
		id, err := c.Identify(ctx)
		return id.String(), err
	},
	"probe of remote read": func(ctx context.Context, c *Client) (string, error) {
		m, err := c.ProbeRead(ctx)
		return string(m), err
	},
	"probe of the export": func(ctx context.Context, c *Client) (string, error) { return "", c.ProbeExport(ctx) },
	"streamed read":       fetching(StreamedRead, nil),
	"samples read":        fetching(SamplesRead, nil),
	"export":              fetching(ExportAPI, nil),
	"query":               fetching(QueryAPI, nil),
	"query_range":         fetching(QueryAPI, &Steps{Start: 0, End: 60_000, Step: 15_000, Lookback: 300_000}),
	"evaluate": func(ctx context.Context, c *Client) (string, error) {
		list, err := c.Evaluate(ctx, "sum(m)", Steps{End: 60_000, Step: 15_000, Lookback: 300_000}, Request{Labels: unchanged})
		return seriesText(list, err)
	},
	"labels": func(ctx context.Context, c *Client) (string, error) {
		names, _, err := c.LabelNames(ctx, ofM)
		return fmt.Sprint(names), err
	},
	"labels of much": func(ctx context.Context, c *Client) (string, error) {
		names, _, err := c.LabelNames(ctx, ofMuch)
		return fmt.Sprint(names), err
	},
	"label values": func(ctx context.Context, c *Client) (string, error) {
		values, _, err := c.LabelValues(ctx, "i", ofM)
		return fmt.Sprint(values), err
	},
	"series": func(ctx context.Context, c *Client) (string, error) {
		list, _, err := c.Series(ctx, ofM)
		return fmt.Sprint(list), err
	},
	"series of much": func(ctx context.Context, c *Client) (string, error) {
		list, _, err := c.Series(ctx, ofMuch)
		return fmt.Sprint(list), err
	},
	"exemplars": func(ctx context.Context, c *Client) (string, error) {
		var data json.RawMessage
		_, err := c.Exemplars(ctx, ofM, &data)
		return string(data), err
	},
	"metadata": func(ctx context.Context, c *Client) (string, error) {
		var data json.RawMessage
		_, err := c.Metadata(ctx, "", nil, &data)
		return string(data), err
	},
	"status": func(ctx context.Context, c *Client) (string, error) {
		var data json.RawMessage
		return string(data), c.Status(ctx, "config", &data)
	},
	"start": func(ctx context.Context, c *Client) (string, error) { return c.StartedByOwnConnection(ctx) },
	"rules": func(ctx context.Context, c *Client) (string, error) {
		names, err := c.RecordNames(ctx)
		return fmt.Sprint(names), err
	},
	"up": func(ctx context.Context, c *Client) (string, error) {
		list, err := c.UpSeries(ctx, 60_000)
		return fmt.Sprint(list), err
	},
}

var (
	ofM    = Lookup{Matchers: []*labels.Matcher{match(labels.MatchEqual, "__name__", "m")}, MaxT: 60_000}
	ofMuch = Lookup{Matchers: []*labels.Matcher{match(labels.MatchRegexp, "__name__", "m|"+strings.Repeat("none|", 20_000)+"m")}, MaxT: 60_000}
)

func fetching(m Method, steps *Steps) func(ctx context.Context, c *Client) (string, error) {
	return func(ctx context.Context, c *Client) (string, error) {
		return seriesText(c.Fetch(ctx, m, Request{Matchers: ofM.Matchers, MaxT: 60_000, Steps: steps, Labels: unchanged}))
	}
}

func seriesText(list []Series, err error) (string, error) {
	var b strings.Builder
	for _, s := range list {
		samples := &dedup.Samples{}
		if err := s.Run.AppendTo(samples, 0, 60_000); err != nil {
			return "", err
		}
		fmt.Fprintln(&b, s.Labels, text(samples))
	}
	return b.String(), err
}

// proxied returns a proxy before a Prometheus that exports, too, and a client for it.
func proxied(t *testing.T) (*fault.Proxy, *Client) {
	t.Helper()
	db := promqltest.LoadedStorage(t, "load 15s\n m{i=\"1\"} 1x4\n up{job=\"a\"} 1x4\n other{odd=\"1\"} 1x4")
	mux := http.NewServeMux()
	mux.Handle("/", backendtest.NewHandler(backendtest.Options{Queryable: db}))
	mux.HandleFunc("/api/v1/export", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("match[]") == "" {
			http.Error(w, "missing `match[]` arg", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", typeExport)
		_, _ = io.WriteString(w, `{"metric":{"__name__":"m"},"values":[1],"timestamps":[0]}`)
	})
	p, err := fault.New(mux)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	h := &http.Transport{}
	t.Cleanup(h.CloseIdleConnections)
	return p, &Client{HTTP: &http.Client{Transport: h, CheckRedirect: CheckRedirect}, Base: &url.URL{Scheme: "http", Host: p.Addr()}, ReadPath: DefaultReadPath}
}

// nearBy makes a client ask for answers without compression.
func nearBy(c *Client) *Client {
	out := *c
	out.Distance = &Distance{}
	out.Distance.observe(1)
	return &out
}

// TestClient_WhatStandsBetweenNeverChangesAnAnswer: a request has the answer that it has without
// the proxy, or an error that tells of the proxy.
func TestClient_WhatStandsBetweenNeverChangesAnAnswer(t *testing.T) {
	p, c := proxied(t)
	want := map[string]string{}
	for name, ask := range everyRequest {
		answer, err := ask(t.Context(), nearBy(c))
		require.NoError(t, err, name)
		want[name] = answer
	}
	check := func(f fault.Fault, c *Client, errText string, fails ...string) {
		t.Helper()
		require.NoError(t, p.Set(f))
		failing := map[string]bool{}
		for _, name := range fails {
			failing[name] = true
		}
		for name, ask := range everyRequest {
			answer, err := ask(t.Context(), c)
			if failing[name] {
				require.ErrorContains(t, err, errText, name)
				continue
			}
			require.NoError(t, err, name)
			require.Equal(t, want[name], answer, name)
		}
		require.NoError(t, p.Set(fault.Fault{}))
	}
	reads := []string{"probe of remote read", "streamed read", "samples read"} // they cannot be asked by GET

	for _, status := range []int{http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		check(fault.Redirects(status), c, "")
	}
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther} {
		check(fault.Redirects(status), c, fmt.Sprintf("redirected with status %d, which loses the body of a POST: name the URL that it leads to as the target", status), reads...)
	}
	check(fault.ClosesIdle(), c, "")
	check(fault.Compresses(), c, "")
	check(fault.Compresses(), nearBy(c), "")
	check(fault.DropsBodies(), c, "status 400", reads...)
}

// TestClient_FormsThatDoNotArriveAreSentByGet for as long as it is so.
func TestClient_FormsThatDoNotArriveAreSentByGet(t *testing.T) {
	for _, obstacle := range []fault.Fault{fault.DropsBodies(), fault.RefusesPost(http.StatusForbidden)} {
		p, c := proxied(t)
		c.Forms = &Forms{}
		ask := func(wantRequests int64) error {
			t.Helper()
			before := p.Requests()
			answer, err := everyRequest["evaluate"](t.Context(), c)
			require.Equal(t, wantRequests, p.Requests()-before)
			require.Equal(t, err == nil, answer != "")
			return err
		}
		check := func(wantRequests int64) {
			t.Helper()
			before := p.Requests()
			c.CheckForms(t.Context())
			require.Equal(t, wantRequests, p.Requests()-before)
		}
		require.NoError(t, ask(1))
		require.NoError(t, p.Set(fault.Redirects(http.StatusFound)))
		require.NoError(t, ask(3)) // no doubt is needed
		require.ErrorContains(t, c.Forms.Lost(), "redirected with status 302")
		require.NoError(t, p.Set(fault.Fault{}))
		check(1)
		require.NoError(t, ask(1))
		require.NoError(t, p.Set(obstacle))
		// Forms have arrived: a refusal is taken for one of the query, until the next probe.
		require.Error(t, ask(1))
		require.NoError(t, c.Forms.Lost())
		check(0)
		require.NoError(t, ask(2))
		require.Error(t, c.Forms.Lost())
		require.NoError(t, ask(1))
		check(1)
		require.NoError(t, ask(1))
		require.NoError(t, p.Set(fault.Fault{}))
		require.NoError(t, ask(1))
		require.Error(t, c.Forms.Lost())
		check(1)
		require.NoError(t, c.Forms.Lost())
		require.NoError(t, ask(1))
		check(0)

		// What is wrong with a query is wrong in both ways.
		for range 2 {
			before := p.Requests()
			_, err := c.Evaluate(t.Context(), "(", Steps{Step: 1}, Request{Labels: unchanged})
			require.Equal(t, ClassUser, ClassOf(err))
			require.EqualValues(t, 2, p.Requests()-before)
			require.NoError(t, c.Forms.Lost())
		}
		// A server that wants GET loses nothing.
		require.NoError(t, p.Set(fault.RefusesPost(http.StatusMethodNotAllowed)))
		require.NoError(t, ask(2))
		require.NoError(t, c.Forms.Lost())
	}
}

// TestClient_LabelsOfMuchThroughALimitOnURLs: what is too long for a URL is sent as a form.
func TestClient_LabelsOfMuchThroughALimitOnURLs(t *testing.T) {
	for _, status := range []int{http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge} {
		losesForms := false
		c := served(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", typeJSON)
			switch form := r.FormValue("match[]") + r.FormValue("query"); {
			case len(r.URL.RawQuery) > 8000:
				w.WriteHeader(status)
			case r.Method == http.MethodPost && (losesForms || form == ""):
				w.WriteHeader(http.StatusBadRequest)
			default:
				_, _ = io.WriteString(w, success(`["`+r.Method+`"]`))
			}
		})
		for l, want := range map[*Lookup]string{&ofM: http.MethodGet, &ofMuch: http.MethodPost} {
			names, _, err := c.LabelNames(t.Context(), *l)
			require.NoError(t, err)
			require.Equal(t, []string{want}, names)
		}
		losesForms = true
		_, _, err := c.LabelNames(t.Context(), ofMuch)
		require.ErrorContains(t, err, fmt.Sprintf("status %d", status))
	}
}

func TestCheckRedirect_SaysWhereItLeads(t *testing.T) {
	f := func(want, location string) {
		t.Helper()
		c := served(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/end" {
				w.Header().Set("Content-Type", typeJSON)
				_, _ = io.WriteString(w, success(`[]`))
				return
			}
			w.Header().Set("Location", strings.ReplaceAll(location, "HOST", r.Host))
			w.WriteHeader(http.StatusFound)
		})
		c.HTTP.CheckRedirect = CheckRedirect
		c.Params = url.Values{"db": {"hunter2"}}
		_, _, err := c.LabelValues(t.Context(), "a", Lookup{MaxT: 1})
		require.False(t, Refused(err))
		if want == "" {
			require.NoError(t, err)
			return
		}
		want = strings.ReplaceAll(want, "HOST", c.Base.Host)
		require.EqualError(t, err, c.URL()+": "+want)
		require.Equal(t, ClassTransport, ClassOf(err))
	}
	f("", "/end?db=hunter2&end=0.001&start=0.000")
	f("", "/end?end=0.001&start=0.000&db=hunter2&more=1")
	f("redirected with status 302, which loses parameters: name the URL that it leads to as the target (from /api/v1/label/a/values to http://HOST/end)", "/end")
	f("redirected with status 302, which loses parameters: name the URL that it leads to as the target (from /api/v1/label/a/values to http://HOST/login)", "//user:hunter2@HOST/login?back=hunter2#hunter2")
	f("redirected with status 302, which loses parameters: name the URL that it leads to as the target (from /api/v1/label/a/values to http://HOST/end)", "/end?db=other&end=0.001&start=0.000")
	f("redirected to another host, elsewhere: name that one as the target", "http://user:hunter2@elsewhere/end?db=hunter2")
	f("redirected ten times", "?db=hunter2&end=0.001&start=0.000")

	via := []*http.Request{httptest.NewRequest(http.MethodGet, "https://a/x", nil)}
	require.EqualError(t, CheckRedirect(httptest.NewRequest(http.MethodGet, "http://a/x", nil), via), "redirected from https to http://a/x: name that URL as the target if it may be asked without TLS")
	via = []*http.Request{httptest.NewRequest(http.MethodGet, "http://a/x", nil)}
	require.NoError(t, CheckRedirect(httptest.NewRequest(http.MethodGet, "https://a/x", nil), via))
}

func TestClient_RedirectThatIsNotFollowedIsNamed(t *testing.T) {
	p, c := proxied(t)
	require.NoError(t, p.Set(fault.Redirects(http.StatusPermanentRedirect)))
	c.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for name, ask := range everyRequest {
		_, err := ask(t.Context(), c)
		require.ErrorContains(t, err, "status 308 Permanent Redirect: redirects, which `follow_redirects` forbids to follow: name the URL that it leads to as the target (http://"+p.Addr()+"/real/api/v1/", name)
		require.False(t, Refused(err))
	}
}

// TestClient_RequestsOnClosedConnectionsAreRepeated: the end of an idle connection meets a request,
// before any of its body is read, too.
func TestClient_RequestsOnClosedConnectionsAreRepeated(t *testing.T) {
	for _, end := range []string{"reset", "closed"} {
		for _, size := range []int{10, 10_000, 1_000_000} {
			var first atomic.Pointer[string]
			var lost, sent atomic.Int64
			c := served(t, func(w http.ResponseWriter, r *http.Request) {
				if !first.CompareAndSwap(nil, &r.RemoteAddr) && *first.Load() == r.RemoteAddr {
					lost.Add(1)
					conn, _, _ := http.NewResponseController(w).Hijack()
					if end == "reset" {
						_ = conn.(interface{ SetLinger(int) error }).SetLinger(0)
					}
					_ = conn.Close()
					return
				}
				for name := range r.Header {
					if strings.Contains(name, "Idempotency") {
						t.Errorf("sent %s", name)
					}
				}
				n, _ := io.Copy(io.Discard, r.Body)
				sent.Add(n)
				w.Header().Set("Content-Type", typeJSON)
				_, _ = io.WriteString(w, emptyMatrix)
			})
			for range 2 {
				_, err := c.Evaluate(t.Context(), strings.Repeat("x", size), Steps{Step: 1}, Request{Labels: unchanged})
				require.NoError(t, err, "%s, %d bytes", end, size)
			}
			require.EqualValues(t, 1, lost.Load())
			require.Greater(t, sent.Load(), int64(2*size))
		}
	}
}

func TestClient_CompressedAnswers(t *testing.T) {
	zipped := func(text string) string {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		_, _ = io.WriteString(zip, text)
		_ = zip.Close()
		return b.String()
	}
	f := func(coding, body string, status int, class Class, want string) {
		t.Helper()
		c := served(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typeJSON)
			w.Header().Set("Content-Encoding", coding)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		var data map[string]string
		err := nearBy(c).Status(t.Context(), "flags", &data)
		require.Equal(t, class, ClassOf(err), "%v", err)
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, map[string]string{"a": "b"}, data)
			return
		}
		require.ErrorContains(t, err, want)
	}
	flags := success(`{"a":"b"}`)
	f("gzip", zipped(flags), 200, "", "")
	f("GZIP ", zipped(flags), 200, "", "")
	f("x-gzip", zipped(flags), 200, "", "")
	f("identity", flags, 200, "", "")
	f("gzip", zipped(`{"error":"why"}`), 500, ClassServer, "status 500 Internal Server Error: why")
	f("br", flags, 200, ClassContent, `the answer has the Content-Encoding "br", which was not asked for: something in front of the server compresses`)
	f("zstd", flags, 500, ClassContent, `"zstd"`)
	f("deflate, gzip", zipped(flags), 200, ClassContent, `"deflate"`)
	f("gzip, gzip", zipped(zipped(flags)), 200, ClassContent, `"gzip"`)
	f("gzip", flags, 200, ClassTransport, "answer broke off: gzip: invalid header")
	f("gzip", zipped(flags)[:20], 200, ClassTransport, "answer broke off: unexpected EOF")
	f("gzip", zipped(success(`{"a":"`+strings.Repeat("b", maxProbeBody)+`"}`)), 200, ClassContent, fmt.Sprintf("answer of more than %d bytes", maxProbeBody))
}
