package ruler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// Upstream's notifier sends what waits for an Alertmanager that is no longer wanted, a batch after
// another, each for as long as `timeout` says. Meanwhile it holds the locks that rules, reloads,
// metrics and other Alertmanagers need. One that hangs would hold all of them up for minutes.

const (
	// slowAfter is how long an Alertmanager may take for a batch before a change does not wait
	// for it.
	slowAfter = time.Second
	// hungFor is how long one that has let a request time out is believed to hang.
	hungFor = 15 * time.Second
	// settleTime is how long it may take until found Alertmanagers are in use.
	settleTime = 15 * time.Second
	// bodyWait and bodySize bound what is read of an answer, which says nothing but its status.
	bodyWait = time.Second
	bodySize = 64 << 10
)

var errHangs = errors.New("given up: the Alertmanager does not answer, and neither reload, discovery nor stop waits for it")

// courier takes alerts to Alertmanagers.
type courier struct {
	send func(*http.Client, *http.Request) (*http.Response, error)

	life     context.Context // of requests
	endLife  context.CancelFunc
	requests sync.WaitGroup

	mtx      sync.Mutex           // guards what follows
	changes  int                  // under way
	settling time.Time            // until when found Alertmanagers may be put to use
	asked    map[string]time.Time // since when Alertmanagers have not answered, by URL
	hung     map[string]time.Time // when Alertmanagers last let a request time out
}

func newCourier() *courier {
	c := &courier{send: (*http.Client).Do, asked: map[string]time.Time{}, hung: map[string]time.Time{}}
	c.life, c.endLife = context.WithCancel(context.Background())
	return c
}

// close waits for the requests under way, but not for an Alertmanager that hangs.
func (c *courier) close() {
	defer time.AfterFunc(slowAfter, c.endLife).Stop()
	c.requests.Wait()
	c.endLife()
}

// changing makes do wait for no Alertmanager that hangs until the function that it returns is called.
func (c *courier) changing() (done func()) {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	c.changes++
	return func() {
		c.mtx.Lock()
		defer c.mtx.Unlock()
		c.changes--
	}
}

// pass passes on which Alertmanagers are found, until ctx ends. Putting them to use is a change, too.
func (c *courier) pass(ctx context.Context, found <-chan map[string][]*targetgroup.Group, to chan<- map[string][]*targetgroup.Group) {
	settle := func() {
		c.mtx.Lock()
		defer c.mtx.Unlock()
		c.settling = time.Now().Add(settleTime)
	}
	for {
		select {
		case groups, ok := <-found:
			if !ok {
				return
			}
			settle()
			select {
			case to <- groups:
				settle()
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// do sends a batch of alerts. It is notifier.Options.Do.
func (c *courier) do(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
	url := req.URL.String()
	if !c.begin(url) {
		return nil, errHangs
	}
	defer c.requests.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	sender := *client
	if sender.CheckRedirect == nil {
		sender.CheckRedirect = checkRedirect
	}
	resp, err := c.send(&sender, req.WithContext(ctx))
	c.end(url, errors.Is(ctx.Err(), context.DeadlineExceeded))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	defer time.AfterFunc(bodyWait, cancel).Stop()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, bodySize)) // so that the connection can be used again
	resp.Body = http.NoBody
	return resp, nil
}

// begin notes that an Alertmanager is asked. It returns false if that is one not to be waited for.
func (c *courier) begin(url string) bool {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	now := time.Now()
	since, busy := c.asked[url]
	changing := c.changes > 0 || now.Before(c.settling)
	if changing && (busy && now.Sub(since) > slowAfter || now.Sub(c.hung[url]) < hungFor) {
		return false
	}
	if !busy {
		c.asked[url] = now
	}
	c.requests.Add(1)
	return true
}

// end notes how a request ended.
func (c *courier) end(url string, timedOut bool) {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	delete(c.asked, url)
	delete(c.hung, url)
	now := time.Now()
	for other, at := range c.hung { // of those that are gone, too
		if now.Sub(at) >= hungFor {
			delete(c.hung, other)
		}
	}
	if timedOut {
		c.hung[url] = now
	}
}

// checkRedirect follows only what takes the same alerts to the same host: what else the
// configuration sends may be secret, and a GET takes no alerts, though it may succeed.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.URL.Host != first.URL.Host:
		return fmt.Errorf("redirected to another host, %s: name that one as the Alertmanager", req.URL.Host)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to http: set `scheme: http` if alerts may be sent without TLS")
	case req.Method != first.Method:
		return fmt.Errorf("redirected with status %d, which loses the alerts: set `scheme` and `path_prefix` to where it leads, %s://%s%s", req.Response.StatusCode, req.URL.Scheme, req.URL.Host, req.URL.Path)
	case len(via) >= 10:
		return errors.New("redirected ten times")
	}
	return nil
}
