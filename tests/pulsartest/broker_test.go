package pulsartest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

func TestATopicIsTheSameByEveryOneOfItsNames(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	for i, name := range []string{"t", "public/default/t", "persistent://public/default/t"} {
		sendAll(t, newProducer(t, client, oneByOne(name)), i, i+1).wait(t)
	}
	for _, name := range []string{"t", "public/default/t", "persistent://public/default/t"} {
		wantPayloads(t, b.Messages(name), numbers(0, 3))
	}
	for _, name := range []string{"a/b", "queue://a/b/c", "a//c", "persistent://a/b/", "a/b/c/d"} {
		if err := b.CreateTopic(name); err == nil {
			t.Errorf("topic %q was accepted", name)
		}
	}
	if err := b.CreateTopic("x-partition-01"); err != nil {
		t.Errorf("a name that only resembles a partition: %v", err)
	}
}

func TestTopicsAreCreatedGrownAndDeletedWithinReason(t *testing.T) {
	b := newBroker(t)
	for what, err := range map[string]error{
		"no partitions":  b.CreatePartitionedTopic("p", 0),
		"a partition":    b.CreateTopic("p-partition-1"),
		"growing nobody": b.GrowPartitions("p", 2),
		"deleting":       b.DeleteTopic("p"),
		"terminating":    b.TerminateTopic("p"),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := b.CreatePartitionedTopic("p", 2); err != nil {
		t.Fatal(err)
	}
	if err := b.CreateTopic("p"); !errors.Is(err, pulsartest.ErrTopicExists) {
		t.Errorf("creating it again: %v", err)
	}
	if err := b.GrowPartitions("p", 2); err == nil {
		t.Error("growing from 2 to 2: no error")
	}
	if n := b.Partitions("p"); n != 2 {
		t.Errorf("%d partitions", n)
	}
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	sendAll(t, p, 0, 1).wait(t)
	if err := b.GrowPartitions("t", 2); err == nil {
		t.Error("growing a topic without partitions: no error")
	}
	if err := b.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	sendAll(t, p, 1, 2).wait(t) // made again by the reconnect
	wantPayloads(t, b.Messages("t"), []string{"1"})
}

func TestWithoutAutoCreationATopicMustBeThere(t *testing.T) {
	b := newBroker(t, pulsartest.NoAutoCreation())
	client := newClient(t, b.URL())
	if _, err := createProducer(client, oneByOne("t")); err == nil || !strings.Contains(err.Error(), "TopicNotFound") {
		t.Errorf("error %v", err)
	}
	if err := b.CreateTopic("t"); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, client, oneByOne("t"))
	sendAll(t, p, 0, 1).wait(t)
	// Deleted while a message is pending: the client gives it up and closes the producer.
	defer b.StallReceipts("t")()
	r := sendAll(t, p, 1, 2)
	if _, err := b.WaitForMessages(testContext(t), "t", 2); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	if _, errs := r.outcome(t); !errors.Is(errs[0], pulsar.ErrTopicNotfound) {
		t.Errorf("error %v", errs[0])
	}
}

func TestAutoCreationCanMakePartitions(t *testing.T) {
	b := newBroker(t, pulsartest.AutoPartitions(3))
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	sendAll(t, p, 0, 1).wait(t)
	if n, got := len(b.Producers("t")), b.Partitions("t"); n != 3 || got != 3 {
		t.Errorf("%d producers, %d partitions", n, got)
	}
}

func TestATokenIsRequired(t *testing.T) {
	b := newBroker(t, pulsartest.RequireToken("right"))
	for token, ok := range map[string]bool{"right": true, "wrong": false, "": false} {
		client := newClient(t, b.URL(), func(o *pulsar.ClientOptions) {
			if !ok { // or the client tries for as long as it may
				o.OperationTimeout = 300 * time.Millisecond
			}
			if token != "" {
				o.Authentication = pulsar.NewAuthenticationToken(token)
			}
		})
		p, err := createProducer(client, oneByOne("t"))
		if (err == nil) != ok {
			t.Errorf("token %q: %v", token, err)
		}
		if err == nil {
			p.Close()
		}
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	b := newBroker(t, pulsartest.TLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
	client := newClient(t, b.URL(), func(o *pulsar.ClientOptions) { o.TLSConfig = &tls.Config{RootCAs: pool} })
	p := newProducer(t, client, oneByOne("t"))
	sendAll(t, p, 0, 10).wait(t)
	b.DropConnections()
	sendAll(t, p, 10, 20).wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 20))
}

func TestASchemaIsAccepted(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	for i, schema := range []pulsar.Schema{pulsar.NewBytesSchema(nil), pulsar.NewStringSchema(nil)} {
		options := oneByOne(fmt.Sprint("schema-", i))
		options.Schema = schema
		sendAll(t, newProducer(t, client, options), 0, 1).wait(t)
	}
	noProblems(t, b)
}

func TestTheLimitIsTheOneOfTheHandshake(t *testing.T) {
	b := newBroker(t, pulsartest.MaxMessageSize(1000))
	client := newClient(t, b.URL())
	p := newProducer(t, client, oneByOne("t"))
	if _, err := p.Send(testContext(t), &pulsar.ProducerMessage{Payload: make([]byte, 1001)}); !errors.Is(err, pulsar.ErrMessageTooLarge) {
		t.Errorf("error %v", err)
	}
	c := pulsartest.DialRaw(t, b.URL())
	c.CreateProducer("t", 1, "", 0)
	c.Answer()
	c.Send(pulsartest.RawSend{Producer: 1, Name: "p", Payload: make([]byte, 20_000)})
	if got := c.Answer(); got != "connection closed" {
		t.Error(got)
	}
	if n := len(b.Problems()); n != 1 {
		t.Errorf("%d problems", n)
	}
}

func TestWhatAConsumerCouldNotTellApartIsTold(t *testing.T) {
	b := newBroker(t)
	c := pulsartest.DialRaw(t, b.URL())
	c.CreateProducer("t", 1, "", 0)
	c.Answer()
	empty := ""
	for i, send := range []pulsartest.RawSend{{}, {Key: &empty}, {Key: &empty, NullKey: true}, {NoChecksum: true}} {
		send.Producer, send.Sequence, send.Name = 1, uint64(i), "p"
		c.Send(send)
		c.Answer()
	}
	got := b.Messages("t")
	if len(got) != 4 {
		t.Fatalf("%d messages", len(got))
	}
	for i, want := range []bool{false, true, false, false} {
		if got[i].HasKey != want || got[i].Key != "" {
			t.Errorf("message %d: key %q, present: %t", i, got[i].Key, got[i].HasKey)
		}
	}
	noProblems(t, b)
}

func TestWhatNoConsumerCouldReadIsAProblem(t *testing.T) {
	b := newBroker(t)
	c := pulsartest.DialRaw(t, b.URL())
	c.CreateProducer("t", 1, "", 0)
	c.Answer()
	for i, send := range []pulsartest.RawSend{
		{Batch: []string{"a", "b"}, Claim: 3},
		{Batch: []string{"a", "b"}, Claim: 1},
		{Batch: []string{"a", "b"}, Claim: -1},
	} {
		send.Producer, send.Sequence, send.Name = 1, uint64(i), "p"
		c.Send(send)
		if got := c.Answer(); got != fmt.Sprintf("SEND_RECEIPT %d, stored", i) {
			t.Error(got)
		}
	}
	if problems := b.Problems(); len(problems) != 3 || len(b.Messages("t")) != 0 || len(b.Entries("t")) != 3 {
		t.Errorf("%d messages, problems %q", len(b.Messages("t")), problems)
	}
}

func TestCommandsOutOfPlaceEndTheConnection(t *testing.T) {
	b := newBroker(t)
	c := pulsartest.DialRaw(t, b.URL())
	c.Write([]byte{0, 0, 0, 8, 0, 0, 0, 4, 8, 32, 16, 1}) // GET_TOPICS_OF_NAMESPACE: a consumer's
	if got := c.Answer(); got != "connection closed" {
		t.Error(got)
	}
	conn, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte{0, 0, 0, 6, 0, 0, 0, 2, 8, 18}); err != nil { // PING before CONNECT
		t.Fatal(err)
	}
	if n, _ := conn.Read(make([]byte, 10)); n != 0 {
		t.Errorf("%d bytes of an answer", n)
	}
	if n := len(b.Problems()); n != 2 {
		t.Errorf("%d problems: %v", n, b.Problems())
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	b := newBroker(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	if _, err := b.WaitForMessages(ctx, "t", 1); !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
}

func TestAClosedBrokerStaysClosedAndReadable(t *testing.T) {
	b := newBroker(t)
	sendAll(t, newProducer(t, newClient(t, b.URL()), oneByOne("t")), 0, 1).wait(t)
	b.Close()
	b.Close()
	if err := b.Restart(); !errors.Is(err, pulsartest.ErrClosed) {
		t.Errorf("restarting: %v", err)
	}
	if conn, err := net.Dial("tcp", b.Addr()); err == nil {
		conn.Close()
		t.Error("a closed broker accepts connections")
	}
	wantPayloads(t, b.Messages("t"), numbers(0, 1))
}

func TestAProducerThatIsClosedWhileItsTopicLoadsIsNotLeftBehind(t *testing.T) {
	b := newBroker(t)
	c := pulsartest.DialRaw(t, b.URL())
	c.CreateProducer("t", 1, "n", 0)
	seen := []string{c.Answer()}
	b.CloseProducers("t")
	seen = append(seen, c.Answer())
	c.CreateProducer("t", 1, "n", 1)
	c.CloseProducer(1)
	seen = append(seen, c.Answer(), c.Answer())
	compare(t, seen, []string{
		"PRODUCER_SUCCESS named, last sequence id -1", "CLOSE_PRODUCER 1", "SUCCESS", "ERROR ServiceNotReady",
	})
	if n := len(b.Producers("t")); n != 0 {
		t.Errorf("%d producers are left", n)
	}
}
