package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseTime(t *testing.T) {
	f := func(text string, ms int64) {
		t.Helper()
		got, err := parseTime(text)
		require.NoError(t, err)
		require.Equal(t, ms, got.Unix()*1000+int64(got.Nanosecond())/1_000_000)
	}
	f("1435781451.781", 1435781451781)
	f("1435781451.7814", 1435781451781)
	f("-59.2", -59200)
	f("1e3", 1_000_000)
	f("2015-07-01T20:10:51.781Z", 1435781451781)
	f("-292273086-05-16T16:47:06Z", -9223309901257974000) // v1.MinTime, as it is printed: no year of four digits
	_, err := parseTime("")
	require.EqualError(t, err, `cannot parse "" to a valid timestamp`)
}
