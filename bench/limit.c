/*
 * The limit: the least that any program can do to get the same SQL into the same databases.
 *
 *   limit run THREADS SQL-FILE < connection-strings   connect to each, send the file as one message, read the answer
 *   limit connect < connection-strings                connect to each, one after the other
 *   limit statements THREADS URL < statements         each thread connects once and sends the next line
 *   limit make THREADS URL SQL-FILE < lines           each thread connects once; of the next line, which is statements and
 *                                                     a connection string between tabs, it sends the statements one after
 *                                                     the other, then connects to the string and sends the file
 *   limit peak PROGRAM ARGUMENT...                     run a program, print its peak memory in kB to standard output
 *
 * C over libpq, because there is nothing thinner between a program and the server that people use. No parsing, no
 * checks, no look at what is there; whatever pgfleet takes longer is what those cost.
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char **targets;
static int target_count;
static char *sql; /* NULL: connect only */

/* The next target that nobody has taken. */
static atomic_int next_target;
static atomic_int failures;

static void visit(const char *target)
{
	PGconn *connection = PQconnectdb(target);

	if (PQstatus(connection) != CONNECTION_OK) {
		fputs(PQerrorMessage(connection), stderr);
		atomic_fetch_add(&failures, 1);
	} else if (sql != NULL) {
		PGresult *result = PQexec(connection, sql);
		ExecStatusType status = PQresultStatus(result);

		if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
			fputs(PQerrorMessage(connection), stderr);
			atomic_fetch_add(&failures, 1);
		}
		PQclear(result);
	}
	PQfinish(connection);
}

static void *work(void *unused)
{
	int target;

	while ((target = atomic_fetch_add(&next_target, 1)) < target_count)
		visit(targets[target]);
	return unused;
}

static const char *server; /* of `statements` and `make` */

static void send_text(PGconn *connection, const char *statements)
{
	PGresult *result = PQexec(connection, statements);

	if (PQresultStatus(result) != PGRES_COMMAND_OK) {
		fputs(PQerrorMessage(connection), stderr);
		atomic_fetch_add(&failures, 1);
	}
	PQclear(result);
}

static void *send_lines(void *unused)
{
	PGconn *connection = PQconnectdb(server);
	int line;

	if (PQstatus(connection) != CONNECTION_OK) {
		fputs(PQerrorMessage(connection), stderr);
		atomic_fetch_add(&failures, 1);
	}
	while (failures == 0 && (line = atomic_fetch_add(&next_target, 1)) < target_count) {
		char *rest = targets[line], *field = strsep(&rest, "\t");

		for (; rest != NULL; field = strsep(&rest, "\t"))
			send_text(connection, field);
		/* What is behind the last tab is a target; where there is no file, it is one more statement. */
		if (sql != NULL && failures == 0)
			visit(field);
		else if (failures == 0)
			send_text(connection, field);
	}
	PQfinish(connection);
	return unused;
}

static void read_targets(void)
{
	char *line = NULL;
	size_t capacity = 0;
	ssize_t length;

	while ((length = getline(&line, &capacity, stdin)) > 0) {
		if (line[length - 1] == '\n')
			line[length - 1] = '\0';
		targets = realloc(targets, (target_count + 1) * sizeof *targets);
		targets[target_count++] = strdup(line);
	}
	free(line);
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text;
	long size;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) {
		perror(path);
		exit(2);
	}
	rewind(file);
	text = calloc(size + 1, 1);
	if (fread(text, 1, size, file) != (size_t)size) {
		perror(path);
		exit(2);
	}
	fclose(file);
	return text;
}

static int run(int thread_count, void *(*work_of_one)(void *))
{
	pthread_t *threads = calloc(thread_count, sizeof *threads);
	int i;

	read_targets();
	for (i = 0; i < thread_count; i++)
		if (pthread_create(&threads[i], NULL, work_of_one, NULL) != 0)
			exit(2);
	for (i = 0; i < thread_count; i++)
		pthread_join(threads[i], NULL);
	return failures != 0;
}

static int peak(char **command)
{
	struct rusage usage;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		/* Standard output is ours: the number goes there. */
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(command[0], command);
		perror(command[0]);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
		return 2;
	printf("%ld\n", usage.ru_maxrss);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "run") == 0) {
		sql = read_file(argv[3]);
		return run(atoi(argv[2]), work);
	}
	if (argc == 2 && strcmp(argv[1], "connect") == 0)
		return run(1, work);
	if (argc == 4 && strcmp(argv[1], "statements") == 0) {
		server = argv[3];
		return run(atoi(argv[2]), send_lines);
	}
	if (argc == 5 && strcmp(argv[1], "make") == 0) {
		server = argv[3];
		sql = read_file(argv[4]);
		return run(atoi(argv[2]), send_lines);
	}
	if (argc > 2 && strcmp(argv[1], "peak") == 0)
		return peak(argv + 2);
	fputs("usage: limit run THREADS SQL-FILE | connect | statements THREADS URL |\n"
	      "             make THREADS URL SQL-FILE | peak PROGRAM ARGUMENT...\n", stderr);
	return 2;
}
