/* Run an exported model in floating point: what `tinymetafed model export --to model.h` writes.
 *
 *     #include "model.h"
 *     #include "run_model.c"
 *
 *     static float values[2][TMF_DEMO_VALUES];
 *     values[0][0] = x;
 *     const float *y = tmf_run(tmf_demo_layers, TMF_DEMO_LAYERS, TMF_DEMO_SCALE, values[0], values[1]);
 */

static float tmf_window(const tmf_layer *layer, const float *below, int output, float scale)
{
    /* Below is the window's first pixel; a window's row is kernel pixels, side by side. */
    const int channels = layer->channels, kernel = layer->kernel;
    const int is_sums = layer->kind == TMF_SUMS;
    const int row = kernel * kernel * (is_sums ? channels : 1) + 1;
    const int16_t *weights = layer->weights ? layer->weights + (size_t)output * row : NULL;
    float sum = 0;
    for (int y = 0; y < kernel; y++) {
        for (int x = 0; x < kernel; x++) {
            const float *pixel = below + (y * layer->width + x) * channels;
            for (int c = is_sums ? 0 : output; c < (is_sums ? channels : output + 1); c++) {
                sum += pixel[c] * (weights ? (float)*weights++ * scale : 1.0f / (kernel * kernel));
            }
        }
    }
    return weights ? sum + (float)*weights * scale : sum;
}

/* The outputs of the last layer. The inputs lie in one of two buffers, each of the most values
 * between two layers; both are used up. */
static const float *tmf_run(const tmf_layer *layers, int count, float scale, float *in, float *out)
{
    for (const tmf_layer *layer = layers; layer < layers + count; layer++) {
        const int rows = (layer->height - layer->kernel) / layer->stride + 1;
        const int columns = (layer->width - layer->kernel) / layer->stride + 1;
        float *above = out;
        for (int y = 0; y < rows; y++) {
            for (int x = 0; x < columns; x++) {
                const float *corner =
                    in + (y * layer->width + x) * layer->stride * layer->channels;
                for (int output = 0; output < layer->outputs; output++) {
                    const float sum = tmf_window(layer, corner, output, scale);
                    *above++ = layer->relu && sum < 0 ? 0 : sum;
                }
            }
        }
        out = in;
        in = above - (size_t)rows * columns * layer->outputs;
    }
    return in;
}
