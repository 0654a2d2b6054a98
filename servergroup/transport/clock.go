package transport

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Clock is how far a replica's clock is from ours, as the dates of its answers show. It is
// safe for concurrent use.
type Clock struct {
	ahead atomic.Int64 // ns
}

// Ahead is by how much the replica's clock is ahead of ours at the least, or behind if it is
// negative. It is 0 where dates do not show that they differ.
func (c *Clock) Ahead() time.Duration {
	if c == nil {
		return 0
	}
	return time.Duration(c.ahead.Load())
}

// dated takes over the date of an answer, which was written between two moments of ours.
// Answers that caches have kept, and have dated in this way, do not count.
func (c *Clock) dated(h http.Header, asked, came time.Time) {
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
