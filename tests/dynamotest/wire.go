package dynamotest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

const (
	targetPrefix = "DynamoDB_20120810."
	contentType  = "application/x-amz-json-1.0"
	maxBody      = 16 << 20
)

// response is a whole answer; lost means that the connection closes instead.
type response struct {
	status int
	header http.Header
	body   []byte
	lost   bool
}

// serve runs one request through faults and engine. ctx ends when the client has given up.
func (db *DB) serve(ctx context.Context, target string, body []byte) response {
	operation, ok := strings.CutPrefix(target, targetPrefix)
	if !ok {
		return db.respond(operation, nil, unknownOperation())
	}
	db.mu.Lock()
	db.count(operation, Count{Requests: 1})
	healthy := db.mu.hook == nil && len(db.mu.faults) == 0
	db.mu.Unlock()
	var f *Fault
	if !healthy { // or the body would be read twice for nothing
		r := db.describeRequest(operation, body)
		db.called(Call{operation, r.Table})
		f = db.faultFor(r)
	}
	if f == nil {
		answer, err := db.do(operation, body)
		return db.respond(operation, answer, err)
	}
	r := db.serveFaulty(ctx, f, operation, body)
	if r.lost {
		db.mu.Lock()
		db.count(operation, Count{Lost: 1})
		db.mu.Unlock()
	}
	return r
}

// serveFaulty is serve for a request that a fault has met.
func (db *DB) serveFaulty(ctx context.Context, f *Fault, operation string, body []byte) response {
	answer, lost, err := db.undergo(ctx, f, func() (any, error) { return db.do(operation, body) })
	if lost {
		return response{lost: true}
	}
	return db.respond(operation, answer, err)
}

// undergo lets a fault happen to a request. Lost means that there is no answer.
func (db *DB) undergo(ctx context.Context, f *Fault, do func() (any, error)) (answer any, lost bool, err error) {
	// Hanging and waiting end with the client or with the DB.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(db.closing, cancel)()
	waiting := ctx
	if f.Kind == LateWrite {
		waiting = db.closing
	}
	if f.Kind != SlowAnswer && !sleep(waiting, f.Delay) {
		return nil, true, nil
	}
	if refused := f.Kind.refusal(); refused != nil {
		return nil, false, refused
	}
	switch f.Kind {
	case Hang:
		<-ctx.Done()
		return nil, true, nil
	case LoseRequest:
		return nil, true, nil
	}
	answer, err = do()
	switch f.Kind {
	case SlowAnswer:
		return answer, !sleep(ctx, f.Delay), err
	case HangAnswer:
		<-ctx.Done()
		return nil, true, nil
	case LoseAnswer:
		return nil, true, nil
	case AppliedInternalError:
		return nil, false, InternalError.refusal()
	}
	return answer, false, err
}

// do decodes the request and runs it in the engine.
func (db *DB) do(operation string, body []byte) (any, error) {
	control := map[string]func(*tableRequest) (any, error){
		"CreateTable": db.createTable, "DescribeTable": db.describeTable, "DeleteTable": db.deleteTable,
		"UpdateTable": db.updateTable, "ListTables": db.listTables,
		"DescribeContinuousBackups": db.continuousBackups, "UpdateContinuousBackups": db.continuousBackups,
		"TagResource": db.tagging, "UntagResource": db.tagging, "ListTagsOfResource": db.tagging,
	}
	data := map[string]func(*itemRequest) (any, error){
		"PutItem": db.putItem, "GetItem": db.getItem, "UpdateItem": db.updateItem, "DeleteItem": db.deleteItem,
		"Scan": db.scan, "Query": db.query,
	}
	if run := control[operation]; run != nil {
		return locked(db, operation, body, run, func(in *tableRequest) string {
			if _, name, ok := strings.Cut(in.ResourceArn, "table/"); ok {
				return name
			}
			return in.TableName
		})
	}
	if run := data[operation]; run != nil {
		return locked(db, operation, body, run, func(in *itemRequest) string { return in.TableName })
	}
	db.called(Call{operation, ""})
	return nil, unknownOperation()
}

func locked[T any](db *DB, operation string, body []byte, run func(*T) (any, error), table func(*T) string) (any, error) {
	in := new(T)
	if err := json.Unmarshal(body, in); err != nil {
		if refused := (*apiError)(nil); errors.As(err, &refused) {
			return nil, refused
		}
		return nil, serialization("Unexpected value in payload: %v", err)
	}
	db.called(Call{operation, table(in)})
	db.mu.Lock()
	defer db.mu.Unlock()
	return run(in)
}

func (db *DB) respond(operation string, answer any, err error) response {
	r := response{status: http.StatusOK, header: http.Header{}}
	if err != nil {
		refused := (*apiError)(nil)
		if !errors.As(err, &refused) {
			refused = &apiError{http.StatusInternalServerError, dynamoShape + "InternalServerError", err.Error(), nil}
		}
		r.status = refused.status
		body := map[string]any{"__type": refused.shape, "message": refused.message}
		if refused.item != nil {
			body["Item"] = wireItem(refused.item)
		}
		answer = body
	}
	body, failed := json.Marshal(answer)
	if failed != nil {
		panic(fmt.Sprintf("dynamotest: encoding an answer of %s: %v", operation, failed))
	}
	r.body = body
	db.mu.Lock()
	db.mu.requests++
	id := db.mu.requests
	if err != nil {
		db.count(operation, Count{Failures: 1})
	}
	db.mu.Unlock()
	r.header.Set("Content-Type", contentType)
	r.header.Set("Content-Length", strconv.Itoa(len(body)))
	r.header.Set("Date", db.options.clock().UTC().Format(http.TimeFormat))
	r.header.Set("X-Amzn-Requestid", fmt.Sprintf("DYNAMOTEST%010d", id))
	r.header.Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	return r
}

// describeRequest reads what faults look at; it is forgiving, since the engine checks the body in earnest.
func (db *DB) describeRequest(operation string, body []byte) Request {
	r := Request{Operation: operation, Body: body}
	var in itemRequest
	if err := json.Unmarshal(body, &in); err != nil {
		var table struct{ TableName string }
		_ = json.Unmarshal(body, &table)
		r.Table = table.TableName
		return r
	}
	r.Table, r.Consistent, r.Names = in.TableName, in.ConsistentRead, in.ExpressionAttributeNames
	r.Key, r.Item, r.Values = item(in.Key), item(in.Item), item(in.ExpressionAttributeValues)
	r.Condition, r.Update = aws.ToString(in.ConditionExpression), aws.ToString(in.UpdateExpression)
	if r.Item != nil {
		db.mu.Lock()
		defer db.mu.Unlock()
		if t := db.mu.tables[in.TableName]; t != nil {
			r.Key = t.keyOf(r.Item)
		}
	}
	return r
}

// ServeHTTP implements http.Handler with DynamoDB's protocol.
func (db *DB) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !db.enter() {
		panic(http.ErrAbortHandler)
	}
	defer db.requests.Done()
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r := db.serve(req.Context(), req.Header.Get("X-Amz-Target"), body)
	if r.lost {
		panic(http.ErrAbortHandler) // closes the connection
	}
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // a client that went away is its own business
}

// API returns a client whose requests reach the engine without a network, through the SDK's own serialisation, signing, retries and
// error handling. Unlike over HTTP, no goroutine blocks outside a synctest bubble. optFns change the client's options as in
// dynamodb.New; the retryer is the SDK's standard one.
func (db *DB) API(optFns ...func(*dynamodb.Options)) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://dynamotest.invalid"),
		Credentials:  credentials.NewStaticCredentialsProvider("dynamotest", "dynamotest", ""),
		HTTPClient:   inProcess{db},
	}, optFns...)
}

// inProcess carries requests to the engine as a network would: the client may give up while the request is still at work.
type inProcess struct{ db *DB }

func (c inProcess) Do(req *http.Request) (*http.Response, error) {
	fail := func(err error) (*http.Response, error) {
		return nil, &url.Error{Op: "Post", URL: req.URL.String(), Err: err}
	}
	body := []byte{}
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		if err = errors.Join(err, req.Body.Close()); err != nil {
			return fail(err)
		}
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c.db.mu.Lock()
	down := c.db.mu.down
	c.db.mu.Unlock()
	if down || !c.db.enter() {
		return fail(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	}
	answered := make(chan response, 1)
	go func() {
		defer c.db.requests.Done()
		answered <- c.db.serve(ctx, req.Header.Get("X-Amz-Target"), body)
	}()
	select {
	case r := <-answered:
		if r.lost {
			if err := ctx.Err(); err != nil {
				return fail(err)
			}
			return fail(io.EOF)
		}
		return &http.Response{
			StatusCode: r.status, Status: http.StatusText(r.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: r.header, Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: int64(len(r.body)), Request: req,
		}, nil
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}
