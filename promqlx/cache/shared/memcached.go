package shared

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// memcached speaks the text protocol of memcached, version 1.4 or newer.
//
// An item holds up to 1 MiB, so that large values are divided. The item with the name of a value
// begins with a byte that says which it is:
//
//   - inline: the value follows.
//   - divided: the length of the value follows (8 bytes), and an identifier that is made anew
//     whenever a value is written. It is in the names of the pieces, so that pieces of two values
//     are never put together.
type memcached struct{}

const (
	inline  = 'i'
	divided = 'd'

	// pieceSize is what an item holds (bytes). Less than 1 MiB, as memcached adds its own.
	pieceSize = 1_000_000
	idSize    = 32 // in hexadecimal
	headSize  = 1 + 8 + idSize
	// maxTTL is how long memcached keeps something at most: what is more, it takes for a date.
	maxTTL = 30 * 24 * time.Hour
)

func (memcached) hello(*conn) error { return nil }

// pieces are those of a value that is divided.
type pieces struct {
	length int
	id     string
}

func (p pieces) count() int { return (p.length + pieceSize - 1) / pieceSize }

// name is that of a piece of the value with a name.
func (p pieces) name(of string, i int) string { return of + ":" + p.id + ":" + strconv.Itoa(i) }

// head is the item that stands for the value.
func (p pieces) head() []byte {
	b := binary.BigEndian.AppendUint64([]byte{divided}, uint64(p.length))
	return append(b, p.id...)
}

// readHead reads what head writes.
func readHead(b []byte) (p pieces, ok bool) {
	if len(b) != headSize || b[0] != divided {
		return pieces{}, false
	}
	length := binary.BigEndian.Uint64(b[1:])
	p.id = string(b[9:])
	_, err := hex.DecodeString(p.id)
	return pieces{int(min(length, maxValue+1)), p.id}, err == nil && length <= maxValue
}

func (memcached) get(c *conn, names []string) ([][]byte, error) {
	out := make([][]byte, len(names))
	heads, err := fetch(c, names)
	large := map[int]pieces{}
	var more []string
	room := c.left
	for i, head := range heads {
		if len(head) > 0 && head[0] == inline {
			out[i] = head[1:]
			continue
		}
		p, ok := readHead(head)
		if !ok {
			out[i] = head // nothing, or something strange, whose seal is not right
			continue
		}
		if p.length > room {
			continue
		}
		room -= p.length
		large[i] = p
		for n := range p.count() {
			more = append(more, p.name(names[i], n))
		}
	}
	if err != nil || len(more) == 0 {
		return out, err
	}
	parts, err := fetch(c, more)
	for i := range names {
		if p, ok := large[i]; ok {
			out[i] = joined(parts[:p.count()], p.length)
			parts = parts[p.count():]
		}
	}
	return out, err
}

// joined returns the value that consists of parts, nil if one is missing.
func joined(parts [][]byte, length int) []byte {
	for i, part := range parts {
		if len(part) != min(pieceSize, length-i*pieceSize) {
			return nil
		}
	}
	return slices.Concat(parts...)
}

// fetch returns the items with names, nil where there is none, and with an error those that came
// before it. The server sends them in the order in which they are asked for.
func fetch(c *conn, names []string) ([][]byte, error) {
	out := make([][]byte, len(names))
	if _, err := c.w.WriteString("get " + strings.Join(names, " ") + "\r\n"); err != nil {
		return out, err
	}
	if err := c.w.Flush(); err != nil {
		return out, err
	}
	for next := 0; ; next++ {
		line, err := c.line()
		if err != nil {
			return out, err
		}
		if string(line) == "END" {
			return out, nil
		}
		name, size, ok := readValueLine(string(line))
		if !ok {
			return out, protocolError(line)
		}
		for next < len(names) && names[next] != name {
			next++
		}
		if next == len(names) {
			return out, fmt.Errorf("an item was sent that was not asked for: %.100q", name)
		}
		if out[next], err = c.value(size); err != nil {
			return out, err
		}
	}
}

// readValueLine reads VALUE <name> <flags> <bytes>.
func readValueLine(line string) (name string, size int, ok bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 4 || fields[0] != "VALUE" {
		return "", 0, false
	}
	size, err := strconv.Atoi(fields[3])
	return fields[1], size, err == nil
}

func (memcached) set(c *conn, items []item) (refused int, err error) {
	// All is sent, and then all answers are read: they are short, and the server does not wait
	// until they are. The item that stands for a divided value comes behind its pieces.
	sent := make([]int, len(items))
	for i, it := range items {
		sent[i] = send(c, it)
	}
	if err := c.w.Flush(); err != nil {
		return refused, err
	}
	for i := range items {
		whole := true
		for range sent[i] {
			line, err := c.line()
			switch {
			case err != nil:
				return refused, err
			case string(line) == "STORED":
			case bytes.HasPrefix(line, []byte("SERVER_ERROR")): // it is full, or the item is too large for it
				whole = false
			default:
				return refused, protocolError(line)
			}
		}
		if !whole {
			refused++
		}
	}
	return refused, nil
}

// send writes a value, and returns of how many items. What fails shows when they are flushed.
func send(c *conn, it item) (items int) {
	seconds := int(min(it.ttl, maxTTL) / time.Second)
	if seconds <= 0 {
		return 0 // memcached would keep it for ever
	}
	write := func(name string, value ...[]byte) {
		items++
		size := 0
		for _, part := range value {
			size += len(part)
		}
		fmt.Fprintf(c.w, "set %s 0 %d %d\r\n", name, seconds, size)
		for _, part := range append(value, crlf) {
			_, _ = c.w.Write(part)
		}
	}
	if len(it.value) < pieceSize {
		write(it.name, []byte{inline}, it.value)
		return items
	}
	p := pieces{len(it.value), newID()}
	for i := range p.count() {
		write(p.name(it.name, i), it.value[i*pieceSize:min((i+1)*pieceSize, len(it.value))])
	}
	write(it.name, p.head())
	return items
}

func newID() string {
	id := make([]byte, idSize/2)
	_, _ = rand.Read(id) // it never fails
	return hex.EncodeToString(id)
}
