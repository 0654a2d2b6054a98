package replica

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// What was learned about the scrapes of replicas stays true only as long as they keep their samples,
// and get none of earlier times. A replica may lose some: with an empty volume, by retention, by a
// deletion, with a block that is broken. It may get some: by a block that was back-filled, or of
// late samples. past is what shows that, and a generation is the time between two such changes.

// past is what a server tells of the samples that it keeps.
type past struct {
	// started is when the process began, in the server's words; "" if it does not tell.
	started string
	// blocks are the blocks on its disk, sorted by time; nil if it does not tell.
	blocks []transport.Block
	// lowest is the time of its oldest sample (ms), if it tells that instead of its blocks.
	lowest *int64
	// head is the time of the oldest sample in its memory (ms), if it has no blocks; nil if that is
	// not known.
	head *int64
}

const restarted = "it was started again"

// maxConfirmWait is how long a query waits for a replica to tell when it was started.
const maxConfirmWait = 3 * time.Second

// unwatchedAge is how long a generation of a server lasts that does not tell when it was started.
const unwatchedAge = 5 * time.Minute

// changedSince reports whether a server may have lost samples that it had before, or got some of earlier
// times, and why.
func (p past) changedSince(before past) (why string, changed bool) {
	if p.started != before.started {
		return restarted, true
	}
	for _, b := range before.blocks {
		if !covered(p.blocks, b.MinTime, b.MaxTime) {
			return "a block is gone", true
		}
		i := slices.IndexFunc(p.blocks, func(now transport.Block) bool { return now.ULID == b.ULID })
		if i >= 0 && p.blocks[i].Stats.NumTombstones > b.Stats.NumTombstones {
			return "series were deleted", true
		}
	}
	if before.lowest != nil && (p.lowest == nil || *p.lowest > *before.lowest) {
		return "its oldest samples are gone", true
	}
	if before.lowest != nil && *p.lowest < *before.lowest || gained(p.blocks, before.blocks) {
		return "samples of earlier times have come", true
	}
	return "", false
}

// gained reports whether a block has come that begins before the end of earlier ones and was not made
// of these alone. The blocks that a server cuts of its newest samples come after all others.
func gained(blocks, before []transport.Block) bool {
	known := map[string]bool{}
	end := int64(math.MinInt64)
	for _, b := range before {
		known[b.ULID], end = true, max(end, b.MaxTime)
		for _, source := range b.Compaction.Sources {
			known[source] = true
		}
	}
	return slices.ContainsFunc(blocks, func(b transport.Block) bool {
		return !known[b.ULID] && b.MinTime < end && slices.ContainsFunc(b.Compaction.Sources, func(source string) bool { return !known[source] })
	})
}

// covered reports whether blocks, which are sorted by time, leave no hole in [from, to) (ms).
func covered(blocks []transport.Block, from, to int64) bool {
	for _, b := range blocks {
		if b.MinTime <= from {
			from = max(from, b.MaxTime)
		}
	}
	return from >= to
}

// LossError says that a replica may have lost samples since it was found to be whole, or that the
// samples of its group have changed otherwise.
type LossError struct{ URL string }

func (e *LossError) Error() string {
	return e.URL + ": it may have lost samples since it was found to be whole"
}

// Generation returns the number of times that samples of earlier times may have changed.
func (r *Replica) Generation() uint64 {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.generation
}

// Rewritten returns when the server was last seen to have lost or got samples of earlier times, other than by
// a restart; the zero time if it was not.
func (r *Replica) Rewritten() time.Time {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.rewritten
}

// Confirm fails with a LossError unless the replica has answered with all samples that it had in
// a generation. A process that was started again has new connections. So if a connection was
// opened since the replica was asked last, it is asked when its process began.
func (r *Replica) Confirm(ctx context.Context, generation uint64) error {
	ctx, cancel := context.WithTimeout(ctx, maxConfirmWait)
	defer cancel()
	select {
	case r.confirming <- struct{}{}: // one request serves all that wait for it
		defer func() { <-r.confirming }()
	case <-ctx.Done():
		return &LossError{r.URL()}
	}
	opened := r.client.Distance.Opened()
	r.mtx.Lock()
	known, seen, begun := r.past.started, r.confirmed, r.generation
	takesTurns := r.profile != nil && r.profile.TakesTurns != "" // its answers are doubted anyway
	r.mtx.Unlock()
	switch {
	case takesTurns:
		return nil
	case begun != generation:
		return &LossError{r.URL()}
	case opened == seen || known == "":
		return nil
	}
	started, err := r.client.Started(ctx)
	if err != nil {
		return &LossError{r.URL()}
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.confirmed = opened
	if started == known {
		return nil
	}
	r.past.started, r.suspect = started, true // its profile may be another one, too
	r.endGeneration(restarted)
	return &LossError{r.URL()}
}

// endGeneration begins a new generation. r.mtx is held.
func (r *Replica) endGeneration(why string) {
	r.generation++
	r.generationAt = r.now()
	r.logger.Warn("the samples that a replica keeps may have changed: what is known of its scrapes is collected again", "url", r.URL(), "reason", why)
}

// readPast asks a Prometheus what it tells of its samples. Other kinds, as a Thanos or another
// oneprom, may well be several processes with the same samples. What a server refuses to tell is
// not known; what it fails to tell is taken to be as before.
func (r *Replica) readPast(ctx context.Context, p *Profile) {
	r.mtx.Lock()
	p.past = r.past
	r.mtx.Unlock()
	if p.Kind != transport.Prometheus {
		p.past = past{}
		return
	}
	told := func(err error) bool { return err == nil || Unreadable(err) }
	p.opened = r.client.Distance.Opened()
	if started, err := p.Client.Started(ctx); told(err) {
		p.past.started = started
	}
	blocks, err := p.Client.Blocks(ctx)
	if told(err) {
		p.past.blocks = blocks
	}
	if err == nil && len(blocks) == 0 {
		p.past.head = nil
		if from, ok, err := p.Client.HeadFrom(ctx); err == nil && ok {
			p.past.head = &from
		}
	}
	if err == nil || !Unreadable(err) {
		return
	}
	value, found, err := p.Client.Metric(ctx, "prometheus_tsdb_lowest_timestamp")
	switch {
	case found:
		lowest := int64(math.MaxInt64) // as a server without samples tells it, which no float64 is
		if value < math.MaxInt64 {
			lowest = int64(value)
		}
		p.past.lowest = &lowest
	case told(err):
		p.past.lowest = nil
	}
}

// comparePast begins a new generation if the last probe shows a change. r.mtx is held.
func (r *Replica) comparePast(p *Profile) {
	why, changed := p.past.changedSince(r.past)
	switch {
	case r.lastProfile == nil:
		r.generationAt = r.now()
	case changed:
		r.endGeneration(why)
		before := r.past
		before.started = p.past.started
		if _, others := p.past.changedSince(before); others {
			r.rewritten = r.now()
		}
	case p.past.started == "" && r.now().Sub(r.generationAt) >= unwatchedAge:
		r.generation, r.generationAt = r.generation+1, r.now()
	}
	r.past, r.confirmed = p.past, p.opened
}
