package backendtest

import (
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// OpenDB opens a TSDB in dir for a backend with little data: no write-ahead log, so that its head is
// gone once it is closed, small buffers, day-long blocks, no retention, exemplars on, out-of-order
// samples refused. Options change the settings. The caller closes it and removes dir.
func OpenDB(dir string, options ...func(*tsdb.Options)) (*tsdb.DB, error) {
	o := tsdb.DefaultOptions()
	o.WALSegmentSize = -1
	o.StripeSize = 1 << 8
	o.HeadChunksWriteBufferSize = chunks.MinWriteBufferSize
	o.MinBlockDuration = (24 * time.Hour).Milliseconds()
	o.MaxBlockDuration = (24 * time.Hour).Milliseconds()
	o.RetentionDuration = 0
	o.OutOfOrderTimeWindow = 0
	o.EnableExemplarStorage = true
	o.MaxExemplars = 10_000
	for _, option := range options {
		option(o)
	}
	return tsdb.Open(dir, promslog.NewNopLogger(), nil, o, nil)
}

// StartTimestamps is an option of OpenDB: start timestamps are kept, in the chunk encodings that can.
func StartTimestamps(o *tsdb.Options) {
	o.EnableSTStorage = true
	o.FloatChunkEncoding = chunkenc.EncXOR2
	o.EnableHistogramSTEncoding = true
}
