// Runs one of the original's services, and answers its calls: a JSON array [function, arguments, call parameters] on each
// line of stdin, [result, null] or [null, error] on each of stdout.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

console.log = console.error; // panics tell of themselves there, where answers are expected
const [marine, control, service, ...modules] = process.argv.slice(2);
const { MarineService } = await import(marine);
const config = (name) => ({
    import_name: name,
    config: {
        logger_enabled: true,
        logging_mask: 0,
        wasi: { envs: {}, preopened_files: new Set(), mapped_dirs: new Map() },
    },
});
const files = Object.fromEntries(modules.map((path) => [path.replace(/^.*\/|\.wasm$/g, ''), readFileSync(path)]));
const original = new MarineService(
    await WebAssembly.compile(readFileSync(control)),
    service,
    () => {},
    { modules_config: Object.keys(files).map(config) },
    files,
    {},
);
await original.init();
for await (const line of createInterface({ input: process.stdin })) {
    const [name, args, parameters] = JSON.parse(line);
    let answer;
    try {
        answer = [original.call(name, args, parameters), null];
    } catch (error) {
        answer = [null, String(error)];
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
