package kpl_test

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

// aggregatedRecord is the message as protobuf itself knows it.
var aggregatedRecord = func() protoreflect.MessageDescriptor {
	type (
		label = descriptorpb.FieldDescriptorProto_Label
		typ   = descriptorpb.FieldDescriptorProto_Type
	)
	const (
		required = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED
		optional = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		repeated = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		text     = descriptorpb.FieldDescriptorProto_TYPE_STRING
		raw      = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		number   = descriptorpb.FieldDescriptorProto_TYPE_UINT64
		nested   = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	)
	field := func(n int32, name string, l label, t typ, message string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &n, Label: &l, Type: &t}
		if message != "" {
			f.TypeName = &message
		}
		return f
	}
	message := func(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("kpl.proto"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("AggregatedRecord", field(1, "keys", repeated, text, ""), field(2, "hash_keys", repeated, text, ""), field(3, "records", repeated, nested, ".Record")),
			message("Record", field(1, "key", required, number, ""), field(2, "hash_key", optional, number, ""), field(3, "data", required, raw, ""), field(4, "tags", repeated, nested, ".Tag")),
			message("Tag", field(1, "key", required, text, ""), field(2, "value", optional, text, "")),
		},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file.Messages().ByName("AggregatedRecord")
}()

// reference takes a message apart with protobuf's own parser, every index checked; false for a plain record.
func reference(wire []byte) (users []kpl.UserRecord, ok bool) {
	m := dynamicpb.NewMessage(aggregatedRecord)
	if len(wire) == 0 || proto.Unmarshal(wire, m) != nil {
		return nil, false
	}
	list := func(name protoreflect.Name) protoreflect.List {
		return m.Get(aggregatedRecord.Fields().ByName(name)).List()
	}
	keys, hashKeys, records := list("keys"), list("hash_keys"), list("records")
	for i := range records.Len() {
		r := records.Get(i).Message()
		fields := r.Descriptor().Fields()
		key, hashKey := r.Get(fields.ByName("key")).Uint(), r.Get(fields.ByName("hash_key")).Uint()
		if key >= uint64(keys.Len()) {
			return nil, false
		}
		u := kpl.UserRecord{PartitionKey: keys.Get(int(key)).String(), Data: r.Get(fields.ByName("data")).Bytes(), Sub: int64(i)}
		if r.Has(fields.ByName("hash_key")) {
			if hashKey >= uint64(hashKeys.Len()) {
				return nil, false
			}
			u.ExplicitHashKey = hashKeys.Get(int(hashKey)).String()
		}
		users = append(users, u)
	}
	return users, true
}

func sameUsers(a, b []kpl.UserRecord) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].PartitionKey != b[i].PartitionKey || a[i].ExplicitHashKey != b[i].ExplicitHashKey || a[i].Sub != b[i].Sub || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}

// FuzzSplit gets its bytes both as they are and as a message under a right digest, which no fuzzer would ever find.
func FuzzSplit(f *testing.F) {
	envelope := golden(f)
	f.Add(envelope, "0", maxHash)
	f.Add(envelope[4:len(envelope)-16], upper, maxHash)
	f.Add(wire(good, group, keyA), "0", lowerLast)
	f.Add(wire(keyA, hashKey7, bytesField(3, wire(varintField(1, 0), varintField(2, 0), dataX))), "7", "7")
	f.Add(wire(keyA, bytesField(3, wire(varintField(1, 1), dataX))), "", "")
	f.Add(wire(keyA, good, protowire.AppendVarint(nil, 1<<32), []byte{0}), "1", "2")
	f.Fuzz(func(t *testing.T, data []byte, start, end string) {
		if users, aggregated := kpl.Split(nil, data, kpl.HashRange{}); !aggregated && users != nil {
			t.Errorf("a plain record gave %+v", users)
		}
		users, total, aggregated := kpl.SplitCounting(nil, kpltest.Seal(data), kpl.HashRange{})
		want, ok := reference(data)
		if aggregated != ok || total != len(want) || !sameUsers(users, want) {
			t.Fatalf("aggregated %v, total %d, users %+v; protobuf says %v, %+v", aggregated, total, users, ok, want)
		}

		if len(users) > 0 {
			var records []kpltest.Record
			for _, u := range users {
				records = append(records, kpltest.Record{PartitionKey: u.PartitionKey, ExplicitHashKey: u.ExplicitHashKey, Data: u.Data})
			}
			again, _ := kpl.Split(nil, kpltest.Aggregate(records), kpl.HashRange{})
			if !sameUsers(again, users) {
				t.Errorf("aggregated again: %+v, was %+v", again, users)
			}
		}

		in, err := kpl.ParseHashRange(start, end)
		if err != nil {
			return
		}
		var belong []kpl.UserRecord
		for _, u := range users {
			if in.Contains(u.PartitionKey, u.ExplicitHashKey) {
				belong = append(belong, u)
			}
		}
		if part, partTotal, _ := kpl.SplitCounting(nil, kpltest.Seal(data), in); partTotal != total || !reflect.DeepEqual(part, belong) && len(part)+len(belong) > 0 {
			t.Errorf("%q to %q: %+v, want %+v", start, end, part, belong)
		}
	})
}
