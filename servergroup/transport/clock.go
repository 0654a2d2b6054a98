package transport

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Clock is the difference between a replica's clock and ours, as the Date headers of its
// responses show it. It is safe for concurrent use.
type Clock struct {
	ahead atomic.Int64 // ns
}

// Ahead is by how much the replica's clock is at least ahead of ours, or behind if it is
// negative. It is 0 if the dates do not show a difference, which is when it is less than a
// second and the time that a request takes.
func (c *Clock) Ahead() time.Duration {
	if c == nil {
		return 0
	}
	return time.Duration(c.ahead.Load())
}

// observe takes the date of a response whose request was sent at asked and which came at
// came. Responses from caches (https://www.rfc-editor.org/rfc/rfc9111#name-age) do not count.
func (c *Clock) observe(h http.Header, asked, came time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	if c == nil || err != nil || h.Get("Age") != "" {
		return
	}
	ahead := time.Duration(0)
	if end := date.Add(time.Second); end.Before(asked) { // dates are whole seconds
		ahead = end.Sub(asked)
	} else if date.After(came) {
		ahead = date.Sub(came)
	}
	c.ahead.Store(int64(ahead))
}
