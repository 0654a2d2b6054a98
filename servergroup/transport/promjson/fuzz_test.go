package promjson

import (
	"bytes"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// FuzzDecode: any bytes are accepted or not as by the model, which reads with
// encoding/json, and give the same result; and the same, or the same error, if
// they come one by one. What is made is charged.
func FuzzDecode(f *testing.F) {
	for _, r := range responses {
		f.Add([]byte(r.body))
	}
	f.Add([]byte(in(`{"histograms":[[1.5,{"count":"6","sum":"-8","buckets":[[1,"-5.6568542494923805","-4","3"],[1,"-4","-2.8284271247461903","2"],[1,"-0.5","-0.3","1"],[3,"-0.3","0.3","2"],[0,"1","1.414213562373095","1"]]}]]}`)))
	f.Add(matrixBody(2, 3, mix))
	f.Add(vectorBody(2))
	f.Add([]byte(in(`{"values":[[-1.7890,"0.00016666666666666666"],[1e0,"18446744073709551616"],[1.5E+1,"-1e-7"],[9223309901257974.775,"0"],[9223372036854774.999,"0x1p-2"]]}`)))
	f.Add([]byte(in(`{"metric":{"a":"1","a":"2"},"values":[[2,"1"],[2,"1"]]}`)))
	f.Add([]byte(`{"status":"error","data":{"result":[1,"x"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) >= maxToken || bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) >= maxDepth {
			return // limits that the model does not have
		}
		charged := 0
		got, err := Decode(bytes.NewReader(body), Options{Charge: func(n int) error { charged += n; return nil }})
		want, ok := modelDecode(body)
		if ok != (err == nil) {
			t.Fatalf("encoding/json accepts: %v, decoder: %v", ok, err)
		}
		slow, slowErr := Decode(iotest.OneByteReader(bytes.NewReader(body)), Options{})
		if err != nil {
			if slowErr == nil || err.Error() != slowErr.Error() {
				t.Fatalf("byte by byte: %v, at once: %v", slowErr, err)
			}
			return
		}
		if slowErr != nil {
			t.Fatalf("byte by byte: %v", slowErr)
		}
		requireSame(t, want, got)
		requireSame(t, want, slow)
		made := -sampleBytes // that of a scalar is not worth a charge
		for _, s := range got.Series {
			made += int(s.Labels.ByteSize()) + dedup.ColumnBytes(&s.Samples)
		}
		for _, text := range slices.Concat(got.Warnings, got.Infos) {
			made += 16 + len(text)
		}
		require.LessOrEqual(t, made, charged)
	})
}
