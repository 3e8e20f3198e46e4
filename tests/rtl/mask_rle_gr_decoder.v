// SPDX-License-Identifier: Apache-2.0
// Decodes a stream of scheme mask-rle-gr: one code, a zero run or a non-zero weight, a cycle.
//
// Bits come in bytes, the least significant one first. A code is zeros for the quotient, a one, and
// k remainder bits. A run gives one zero a cycle, so that exactly one weight leaves a cycle.
module mask_rle_gr_decoder (
    input  wire               clock,
    input  wire               reset,
    input  wire        [31:0] n_weights,     // to decode; the stream is read from reset on
    input  wire         [7:0] byte_in,
    input  wire               byte_valid,
    output wire               byte_ready,
    output reg  signed  [9:0] weight,
    output reg                weight_valid,
    output wire               done
);
  localparam HEADER = 2'd0, RUN = 2'd1, ZEROS = 2'd2, VALUE = 2'd3;

  reg  [31:0] window;     // bits not yet used, the next one at the bottom
  reg   [5:0] fill;       // how many
  reg  [31:0] quotient;   // of the code at hand, as far as it is known
  reg  [31:0] zeros;      // of the run still to be given
  reg  [31:0] left;       // weights still to be given
  reg   [3:0] k_run, k_code;
  reg   [1:0] state;

  wire  [3:0] k = state == RUN ? k_run : k_code;

  // zeros at the bottom of the window, eight at the most a cycle
  reg [3:0] n_zeros;
  always @* begin
    casez (window[7:0])
      8'b???????1: n_zeros = 4'd0;
      8'b??????10: n_zeros = 4'd1;
      8'b?????100: n_zeros = 4'd2;
      8'b????1000: n_zeros = 4'd3;
      8'b???10000: n_zeros = 4'd4;
      8'b??100000: n_zeros = 4'd5;
      8'b?1000000: n_zeros = 4'd6;
      8'b10000000: n_zeros = 4'd7;
      default:     n_zeros = 4'd8;
    endcase
  end

  wire        unary_ends = n_zeros < 8 && n_zeros < fill;
  wire  [5:0] code_bits  = n_zeros + 6'd1 + k;
  wire        code_ends  = unary_ends && code_bits <= fill;
  wire [31:0] remainder  = (window >> (n_zeros + 1)) & ~(32'hFFFFFFFF << k);
  wire [31:0] symbol     = ((quotient + n_zeros) << k) | remainder;
  wire [31:0] magnitude  = (symbol >> 1) + 1;
  wire        decoding   = (state == RUN || state == VALUE) && left != 0;

  // bits that this cycle uses up
  wire  [5:0] used = state == HEADER           ? (fill >= 8 ? 6'd8 : 6'd0)
                   : !decoding                 ? 6'd0
                   : code_ends                 ? code_bits
                   : n_zeros == 8 && fill >= 8 ? 6'd8
                   :                             6'd0;

  assign byte_ready = fill - used <= 24;
  assign done = state != HEADER && left == 0;

  wire take = byte_valid && byte_ready;

  always @(posedge clock) begin
    weight_valid <= 0;
    if (reset) begin
      window <= 0; fill <= 0; quotient <= 0; zeros <= 0; left <= n_weights; state <= HEADER;
    end else begin
      window <= (window >> used) | (take ? {24'd0, byte_in} << (fill - used) : 32'd0);
      fill   <= fill - used + (take ? 6'd8 : 6'd0);
      case (state)
        HEADER: if (fill >= 8) begin
          k_run <= window[3:0]; k_code <= window[7:4]; state <= RUN;
        end
        RUN: if (decoding) begin
          if (code_ends) begin
            quotient <= 0; zeros <= symbol; state <= symbol == 0 ? VALUE : ZEROS;
          end else if (used != 0) quotient <= quotient + 8;
        end
        ZEROS: begin
          weight <= 0; weight_valid <= left != 0;
          if (left != 0) left <= left - 1;
          zeros <= zeros - 1;
          if (zeros == 1) state <= VALUE;
        end
        VALUE: if (decoding) begin
          if (code_ends) begin
            weight <= symbol[0] ? -magnitude[9:0] : magnitude[9:0];
            weight_valid <= 1; left <= left - 1; quotient <= 0; state <= RUN;
          end else if (used != 0) quotient <= quotient + 8;
        end
      endcase
    end
  end
endmodule
