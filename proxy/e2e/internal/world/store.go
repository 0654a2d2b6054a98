package world

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// blockRange is the length in ms of a block as Prometheus cuts them from its head.
const blockRange = 2 * hour

// century is a retention that keeps all the data of a world, in ms.
const century = 100 * 365 * 24 * hour

// Store writes the data directory of the server for the history from Begin to end (unix ms): full blocks for all whole block
// ranges before HeadFrom, the rest in the head's WAL. A server whose HeadFrom is not before end has blocks only, and therefore answers
// unsorted selects in label order.
func (s *Server) Store(ctx context.Context, dir string, end int64) (err error) {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = century
	opts.MinBlockDuration, opts.MaxBlockDuration = blockRange, blockRange
	if s.startTimes() {
		opts.EnableSTStorage, opts.EnableHistogramSTEncoding = true, true
		opts.FloatChunkEncoding = chunkenc.EncXOR2
	}
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		return fmt.Errorf("open the data directory of %s: %w", s.Name, err)
	}
	defer func() {
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}()
	db.DisableCompactions()

	begin := func() storage.AppenderV2 { return db.AppenderV2(ctx) }
	cut := func(slotStart int64) error {
		// Late clocks still write into the range before for two slots.
		bound := (slotStart - 2*Slot) / blockRange * blockRange
		return cutBlocks(db, min(bound, s.HeadFrom/blockRange*blockRange))
	}
	if err := s.write(ctx, Span{Begin, end}, begin, cut); err != nil {
		return fmt.Errorf("write the data of %s: %w", s.Name, err)
	}
	if s.HeadFrom >= end {
		return cutBlocks(db, end+blockRange)
	}
	return nil
}

// cutBlocks moves whole block ranges that end at or before bound (unix ms) from the head into blocks.
func cutBlocks(db *tsdb.DB, bound int64) error {
	for db.Head().NumSeries() > 0 && db.Head().MinTime() <= db.Head().MaxTime() {
		from := db.Head().MinTime() / blockRange * blockRange
		if from+blockRange > bound {
			return nil
		}
		if err := db.CompactHead(tsdb.NewRangeHead(db.Head(), from, from+blockRange-1)); err != nil {
			return fmt.Errorf("cut a block: %w", err)
		}
	}
	return nil
}
